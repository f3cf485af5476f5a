"""What a namespace knows: queues and their numbers, types, workers, the secret of its page tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher.errors import InvalidRequestError, JobNotFoundError, QueueNotFoundError, TooManyQueuesError
from gopher.registration_errors import TooManyTypesError
from gopher.store import ids, keys
from gopher.store.leases import Leases
from gopher.store.registry import MOST_TYPES, TYPE_KEPT_MS, Registry, WorkerDescription
from gopher.store.scripts import Script
from tests.store.rig import SET_CLOCK, START_MS, TURNED_NOW, turn_clocks, with_turned_clock

if TYPE_CHECKING:
    from gopher.store.store import Store

MAX_QUEUES = 65_536
DESCRIPTION = WorkerDescription(
    host="h",
    pid=1,
    version="0",
    queues={"default": 1},
    types=["t"],
    slots=4,
    busy=2,
    started_ms=3,
    draining=False,
    stuck=["x y"],
)


async def test_queue_number_is_given_once_and_kept(store: Store, namespace: str) -> None:
    """No two names have the same number, and the same name has the same number for every process."""
    other = Registry(store.link)

    numbers = [await store.registry.queue_number(namespace, name) for name in ("a", "b", "a", "c")]
    others = [await other.queue_number(namespace, name) for name in ("c", "b", "a")]

    assert len(set(numbers)) == 3
    assert others == [numbers[3], numbers[1], numbers[0]]


async def test_queue_number_is_given_once_when_many_ask_together(store: Store, namespace: str) -> None:
    """Two servers that meet a new name at once agree on its number."""
    registries = [Registry(store.link) for _ in range(8)]
    numbers: list[int] = []

    async def ask(registry: Registry) -> None:
        numbers.append(await registry.queue_number(namespace, "new"))

    async with trio.open_nursery() as nursery:
        for registry in registries:
            nursery.start_soon(ask, registry)

    assert len(numbers) == 8
    assert len(set(numbers)) == 1


async def test_queue_number_of_the_65_537th_queue_is_refused(store: Store, namespace: str) -> None:
    """An id has 16 bits for the queue; the name that would need a 17th is refused, and the last one before is not."""
    pairs = [word for number in range(MAX_QUEUES - 1) for word in (f"q{number}", number, f"#{number}", f"q{number}")]
    for start in range(0, len(pairs), 40_000):
        await store.link.call("HSET", keys.queues(namespace), *pairs[start : start + 40_000])

    last = await store.registry.queue_number(namespace, "last")
    with pytest.raises(TooManyQueuesError):
        await store.registry.queue_number(namespace, "one-too-many")

    assert last == MAX_QUEUES - 1
    assert await store.link.call("HLEN", keys.queues(namespace)) == 2 * MAX_QUEUES
    assert await store.registry.queue_number(namespace, "q7") == 7


async def test_queue_of_finds_the_queue_that_an_id_carries(store: Store, namespace: str) -> None:
    """Whoever has an id finds its queue, also one who never named it."""
    for name in ("a", "b"):
        await store.registry.queue_number(namespace, name)
    job_id = ids.IdSource().new(await store.registry.queue_number(namespace, "b"))

    assert await Registry(store.link).queue_of(namespace, job_id) == "b"


async def test_queue_of_an_unknown_number_finds_no_job(store: Store, namespace: str) -> None:
    """An id of no queue names no job; text that is no id is refused."""
    with pytest.raises(JobNotFoundError):
        await store.registry.queue_of(namespace, ids.IdSource().new(9))
    with pytest.raises(InvalidRequestError):
        await store.registry.queue_of(namespace, "no-id")


async def test_queues_are_listed_by_name(store: Store, namespace: str) -> None:
    """The names are told, and the numbers beside them are not."""
    for name in ("b", "a", "c"):
        await store.registry.queue_number(namespace, name)

    assert await store.registry.queues(namespace) == ["a", "b", "c"]


async def test_require_queue_refuses_a_queue_that_nobody_used(store: Store, namespace: str) -> None:
    """A queue exists from its first use on, for those who did not use it too."""
    await store.registry.queue_number(namespace, "a")

    await store.registry.require_queue(namespace, "a")
    await Registry(store.link).require_queue(namespace, "a")
    with pytest.raises(QueueNotFoundError):
        await store.registry.require_queue(namespace, "b")


async def test_types_are_known_once_a_worker_has_registered_them(store: Store, namespace: str) -> None:
    """In its namespace only."""
    before = await store.registry.is_known_type(namespace, "email")

    await store.registry.add_types(namespace, ["email", "export"])

    assert not before
    assert await store.registry.is_known_type(namespace, "email")
    assert not await store.registry.is_known_type(namespace + "x", "email")
    assert await store.registry.types(namespace) == ["email", "export"]


async def test_types_are_forgotten_that_no_worker_has_had_for_long(store: Store, namespace: str) -> None:
    """Also those that a worker of an older version has made known, which notes no moment: they count from the first look."""
    turn_clocks(store.registry)
    clock = keys.types(namespace) + ":clock"
    await store.registry.add_types(namespace, ["gone", "kept"])
    await store.link.call("SADD", keys.types(namespace), "old")
    looks = [await store.registry.free_types(namespace)]
    await store.link.call("EVAL", SET_CLOCK, 1, clock, START_MS + TYPE_KEPT_MS - 1)
    await store.registry.add_types(namespace, ["kept"])
    looks.append(await store.registry.free_types(namespace))
    await store.link.call("EVAL", SET_CLOCK, 1, clock, START_MS + TYPE_KEPT_MS)
    looks.append(await store.registry.free_types(namespace))
    known = await store.registry.types(namespace)
    await store.link.call("EVAL", SET_CLOCK, 1, clock, START_MS + 2 * TYPE_KEPT_MS)
    looks.append(await store.registry.free_types(namespace))

    assert [sorted(look) for look in looks] == [[], [], ["gone", "old"], ["kept"]]
    assert known == ["kept"]
    assert await store.link.call_all([("EXISTS", keys.types(namespace)), ("EXISTS", keys.types_declared(namespace))]) == [0, 0]


async def test_registry_looks_again_after_an_hour_whether_a_type_is_known(
    store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that goes on refuses, in the end, what is not known any more."""
    await store.registry.add_types(namespace, ["email"])
    before = await store.registry.is_known_type(namespace, "email")
    await store.link.call("DEL", keys.types(namespace), keys.types_declared(namespace))
    meanwhile = await store.registry.is_known_type(namespace, "email")

    monkeypatch.setattr(store.registry, "_forget_types_at", trio.current_time())

    assert (before, meanwhile) == (True, True)
    assert not await store.registry.is_known_type(namespace, "email")


async def test_namespace_knows_10_000_types(store: Store, namespace: str) -> None:
    """No more are taken, and all or none of those of a worker; what is known already may be declared again."""
    await store.registry.add_types(namespace, (f"t{at}" for at in range(MOST_TYPES - 1)))

    with pytest.raises(TooManyTypesError, match="another namespace") as caught:
        await store.registry.add_types(namespace, ["t0", "first", "second"])
    await store.registry.add_types(namespace, ["t0", "first"])
    await store.registry.add_types(namespace, ["t1", "first"])

    assert "'second'" in caught.value.message
    assert len(await store.registry.types(namespace)) == MOST_TYPES


async def test_workers_are_those_that_beat(store: Store, redis_url: str, namespace: str) -> None:
    """A worker is listed with what it said last, until it takes itself off."""
    leases = Leases(redis_url, namespace=namespace, reply_seconds=5)
    leases.beat("w2", msgspec.json.encode(DESCRIPTION), 60_000)
    leases.beat("w1", msgspec.json.encode(DESCRIPTION), 60_000)
    both = await store.registry.workers(namespace)

    leases.beat("w1", msgspec.json.encode(DESCRIPTION), 0)
    leases.close()

    assert [worker.id for worker in both] == ["w1", "w2"]
    assert both[0].description == DESCRIPTION
    assert [worker.id for worker in await store.registry.workers(namespace)] == ["w2"]


async def test_workers_that_fell_silent_are_dropped_by_the_next_beat(store: Store, namespace: str) -> None:
    """An entry stands for the life it was given; then it is neither listed nor kept."""
    beat = with_turned_clock(Script.load("beat"))
    key = keys.workers(namespace)
    await store.link.call("SET", key + ":clock", 1000, "EX", 60)
    await beat(store.link, [key], ["silent", 500, msgspec.json.encode(DESCRIPTION)])
    await store.link.call("SET", key + ":clock", 1501, "EX", 60)

    listed = await store.registry.workers(namespace)
    await beat(store.link, [key], ["other", 500, msgspec.json.encode(DESCRIPTION)])

    assert TURNED_NOW in beat.text
    assert listed == []
    assert await store.link.call("HKEYS", key) == [b"other"]


async def test_beat_looks_at_a_few_entries_of_a_large_register(store: Store, namespace: str) -> None:
    """What it costs does not grow with the workers; those that fell silent are dropped all the same, some with each beat."""
    beat = Script.load("beat")
    key = keys.workers(namespace)
    await store.link.call("HSET", key, *[word for at in range(200) for word in (f"silent-{at}", "1 1 {}")])

    left = []
    for _ in range(25):
        await beat(store.link, [key], ["living", 5000, msgspec.json.encode(DESCRIPTION)])
        left.append(await store.link.call("HLEN", key) - 1)

    assert left[0] >= 190
    assert left[-1] == 0


async def test_page_secret_is_made_once_for_all(store: Store, namespace: str) -> None:
    """All servers of a namespace sign with the same 32 bytes, each namespace has its own, and asking leaves no key there."""
    secrets = [await Registry(store.link).page_secret(namespace) for _ in range(2)]
    other = await store.registry.page_secret(namespace + "x")

    assert secrets[0] == secrets[1]
    assert len(secrets[0]) == 32
    assert other != secrets[0]
    assert await store.link.call("EXISTS", f"gopher:{namespace}:page_secret") == 0
