"""Tells which keys of a namespace would stay for ever: a second opinion on the store, which reads Redis by itself.

A key is permanent by its name, or it has a TTL, or it is the record of a job that stands in the index of its state, or an index
all of whose entries have such a record, or a unique key held by a job that is not final, or a schedule that stands in the index
of schedules. An outbox is a leak: somebody must have delivered what it held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import redis

PERMANENT_OF_NAMESPACE: Final = frozenset({"queues", "types", "workers", "page_secret"})
PERMANENT_OF_QUEUE: Final = frozenset({"settings", "counters"})
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
    return [*of_namespace, *of_queues]


def forget(connection: redis.Redis, namespace: str) -> None:
    """Delete every key of the namespace."""
    for pattern in (f"gopher:{namespace}:*", f"gopher:{{{namespace}:*"):
        if found := list(connection.scan_iter(match=pattern, count=1000)):
            connection.unlink(*found)


def _fault_of_queue_key(connection: redis.Redis, key: str) -> str | None:
    tag, name = key.split("}:", 1)
    base = tag + "}:"
    kind, _, rest = name.partition(":")
    if name in PERMANENT_OF_QUEUE:
        return None
    if kind == "job":
        index = _index_of(connection, base, rest)
        return None if connection.zscore(base + index, rest) is not None else f"the job is not in {index}"
    if name in INDEXES:
        strays = [job_id for job_id in _members(connection, key) if _index_of(connection, base, job_id) != name]
        return f"holds {strays}, which stand elsewhere or nowhere" if strays else None
    if name == "deadlines":
        strays = [job_id for job_id in _members(connection, key) if not connection.exists(f"{base}job:{job_id}")]
        return f"holds {strays}, which do not exist" if strays else None
    if name == "outbox":
        return f"holds {cast('list[str]', connection.hkeys(key))}, which nobody has delivered"
    if name == "schedules":
        lost = [each for each in _members(connection, key) if not connection.exists(f"{base}schedule:{each}")]
        return f"holds {lost}, which do not exist" if lost else None
    if kind == "schedule":
        return None if connection.zscore(base + "schedules", rest) is not None else "the schedule is not in schedules"
    if kind == "unique":
        index = _index_of(connection, base, str(connection.get(key)))
        return None if index in INDEXES - FINAL else "is held by a job that is final or gone"
    # One that has come to its end since it was found has none either, and is no leak.
    return None if connection.ttl(key) != -1 else "no TTL, and not known as permanent"


def _members(connection: redis.Redis, key: str) -> list[str]:
    return cast("list[str]", connection.zrange(key, 0, -1))


def _index_of(connection: redis.Redis, base: str, job_id: str) -> str:
    """Return the index that the record of a job names."""
    state, priority = cast("list[str | None]", connection.hmget(f"{base}job:{job_id}", "state", "priority"))
    return f"enqueued:{priority or 'normal'}" if state == "enqueued" else str(state)
