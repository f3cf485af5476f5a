"""Tells which keys of a namespace would stay for ever: a second opinion on the store, which reads Redis by itself.

A key is permanent by its name, or it has a TTL, or it is the record of a job that stands in the index of its state, or the history
of a job whose record says that it has one, or an index
all of whose entries have such a record, or a unique key held by a job that is not final, or a schedule that stands in the index
of schedules, or what holds jobs back, which claims ask again, those of their type if it is a type, or a count of jobs that run, or a family that its parent's record
tells of or that stands among the orphans. An outbox is a leak: somebody must have
delivered what it held. Bulk operations stand under a tag of their own,
and all of them have a TTL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import redis

PERMANENT_OF_NAMESPACE: Final = frozenset({"queues", "types", "workers", "breakers"})
PERMANENT_OF_QUEUE: Final = frozenset({"settings", "counters", "limits", "figures", "attached", "orphans"})
FINAL: Final = frozenset({"completed", "failed", "cancelled"})
INDEXES: Final = FINAL | {"scheduled", "enqueued:high", "enqueued:normal", "enqueued:low", "processing", "retrying"}


def leaked_keys(connection: redis.Redis, namespace: str) -> list[str]:
    """Return a line for each key that nothing will ever remove; the connection must decode its replies."""
    of_namespace = (
        f"{key}: permanent, and not known as such"
        for key in connection.scan_iter(match=f"gopher:{namespace}:*", count=1000)
        if key.rpartition(":")[2] not in PERMANENT_OF_NAMESPACE and connection.ttl(key) < 0
    )
    of_queues = (
        f"{key}: {fault}"
        for key in connection.scan_iter(match=f"gopher:{{{namespace}:*", count=1000)
        if (fault := _fault_of_queue_key(connection, key))
    )
    of_bulk = (
        f"{key}: no TTL, and not known as permanent"
        for pattern in _bulk_patterns(namespace)
        for key in connection.scan_iter(match=pattern, count=1000)
        if connection.ttl(key) < 0
    )
    return [*of_namespace, *of_queues, *of_bulk]


def forget(connection: redis.Redis, namespace: str) -> None:
    """Delete every key of the namespace."""
    for pattern in (
        f"gopher:{namespace}:*",
        f"gopher:declared:{{gopher:{namespace}:*",
        f"gopher:{{{namespace}:*",
        *_bulk_patterns(namespace),
    ):
        if found := list(connection.scan_iter(match=pattern, count=1000)):
            connection.unlink(*found)


def _bulk_patterns(namespace: str) -> tuple[str, str]:
    return f"gopher:{{bulk}}:of:{namespace}", f"gopher:{{bulk}}:of:{namespace}:*"


def _fault_of_queue_key(connection: redis.Redis, key: str) -> str | None:
    tag, _, name = key.partition("}:")
    base = tag + "}:"
    if not name:
        return None if ":breaker:" in tag else "of no queue, and of no breaker"
    kind, _, rest = name.partition(":")
    if name in PERMANENT_OF_QUEUE:
        return None
    if kind in {"job", "history"}:
        return _fault_of_job_key(connection, base, kind, rest)
    if name in INDEXES:
        strays = [job_id for job_id in _members(connection, key) if _index_of(connection, base, job_id) != name]
        return f"holds {strays}, which stand elsewhere or nowhere" if strays else None
    if kind in FAULTS:
        return FAULTS[kind](connection, base, rest)
    if name.startswith("limit:concurrency:"):
        return _fault_of_running(connection, base, key)
    if name == "schedules" or name == "deadlines":
        of = name.removesuffix("s") if name == "schedules" else "job"
        lost = [each for each in _members(connection, key) if not connection.exists(f"{base}{of}:{each}")]
        return f"holds {lost}, which do not exist" if lost else None
    if name == "outbox":
        return f"holds {sorted(cast('list[str]', connection.hkeys(key)))}, which nobody has delivered"
    # One that has come to its end since it was found has none either, and is no leak.
    return None if connection.ttl(key) != -1 else "no TTL, and not known as permanent"


def _fault_of_job_key(connection: redis.Redis, base: str, kind: str, job_id: str) -> str | None:
    if kind == "history":
        return None if connection.hget(f"{base}job:{job_id}", "history") else "the job is gone, or knows nothing of it"
    index = _index_of(connection, base, job_id)
    return None if connection.zscore(base + index, job_id) is not None else f"the job is not in {index}"


def _fault_of_family(connection: redis.Redis, base: str, parent_id: str) -> str | None:
    places = [connection.zscore(base + of, parent_id) for of in ("orphans", "attached")]
    is_known = connection.hexists(f"{base}job:{parent_id}", "family") or places != [None, None]
    return None if is_known else "its parent knows of no children, and nobody will look after them"


def _fault_of_schedule(connection: redis.Redis, base: str, name: str) -> str | None:
    return None if connection.zscore(base + "schedules", name) is not None else "the schedule is not in schedules"


def _fault_of_unique(connection: redis.Redis, base: str, unique: str) -> str | None:
    index = _index_of(connection, base, str(connection.get(f"{base}unique:{unique}")))
    return None if index in INDEXES - FINAL else "is held by a job that is final or gone"


def _fault_of_parked(connection: redis.Redis, base: str, rest: str) -> str | None:
    if not rest:
        return None
    name = f"parked:{rest}"
    strays = [job_id for job_id in _members(connection, base + name) if _index_of(connection, base, job_id) != name]
    if strays:
        return f"holds {strays}, which stand elsewhere or nowhere"
    return None if connection.zscore(base + "parked", rest.rpartition(":")[0]) is not None else "nobody would ask again"


def _fault_of_foreign(connection: redis.Redis, base: str, rest: str) -> str | None:
    if rest:
        lost = [by for by in _members(connection, f"{base}foreign:{rest}") if connection.zscore(base + "parked", by) is None]
        return f"holds {lost}, which hold nothing back" if lost else None
    types = cast("set[str]", connection.smembers(base + "foreign"))
    strays = [each for each in types if not connection.exists(f"{base}foreign:{each}")]
    return f"holds {strays}, of which nothing is held back" if strays else None


def _fault_of_running(connection: redis.Redis, base: str, key: str) -> str | None:
    counted = cast("set[str]", connection.smembers(key))
    strays = [each for each in counted if connection.hget(f"{base}job:{each}", "state") != "processing"]
    return f"counts {strays}, which do not run" if strays else None


def _members(connection: redis.Redis, key: str) -> list[str]:
    return cast("list[str]", connection.zrange(key, 0, -1))


def _index_of(connection: redis.Redis, base: str, job_id: str) -> str:
    """Return the index that the record of a job names."""
    record = connection.hmget(f"{base}job:{job_id}", "state", "priority", "parked_by")
    state, priority, parked_by = cast("list[str | None]", record)
    line = f"parked:{parked_by}" if parked_by else "enqueued"
    return f"{line}:{priority or 'normal'}" if state == "enqueued" else str(state)


FAULTS: Final = {
    "family": _fault_of_family,
    "foreign": _fault_of_foreign,
    "parked": _fault_of_parked,
    "schedule": _fault_of_schedule,
    "unique": _fault_of_unique,
}
"""By the word before the first colon of a key's name."""
