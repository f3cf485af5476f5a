"""What a process has made known is known again after Redis has lost data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.errors import JobNotFoundError
from gopher.job import NewJob
from gopher.registration_errors import TooManyTypesError
from gopher.store import keys
from gopher.store.ids import queue_number
from gopher.store.outbox import pack
from gopher.store.store import Store
from gopher.store.submission import SubmitReceipt
from tests.waiting import until

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

NAMESPACE = "test"


@pytest.fixture
async def own(redis_server: RedisServer, nursery: trio.Nursery) -> Store:
    """A store on a redis-server of the test's own, which has looked at it once."""
    return await open_store(redis_server, nursery)


async def open_store(server: RedisServer, nursery: trio.Nursery) -> Store:
    store = Store(server.url, client_name="test")
    await nursery.start(store.run)
    await store.declarations.tick()
    return store


async def submit(store: Store, queue: str = "mail") -> str:
    (answer,) = await store.lifecycle.submit(NAMESPACE, [NewJob(type="email", queue=queue)])
    assert isinstance(answer, SubmitReceipt)
    return answer.job_id


async def test_job_submitted_after_redis_was_emptied_is_found_and_listed(
    own: Store, redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """A process that remembers the number of a queue finds out with the first submit that the name is gone."""
    await submit(own)
    await own.link.call("FLUSHALL")

    job_id = await submit(own)

    other = await open_store(redis_server, nursery)
    assert (await other.query.get(NAMESPACE, job_id)).queue == "mail"
    assert await other.query.queues(NAMESPACE) == ["mail"]


@pytest.mark.parametrize("how", ["attached", "nursery", "outbox"])
async def test_every_way_to_store_a_job_names_its_queue(own: Store, how: str) -> None:
    """Also where the id was given out before the name was lost: the queue has the number again that the id carries."""
    job = NewJob(type="email", queue="mail")
    await own.registry.queue_number(NAMESPACE, "mail")
    job_id = await own.families.reserve(NAMESPACE, "mail")
    await own.link.call("FLUSHALL")

    if how == "attached":
        answer = await own.attached_jobs.submit(NAMESPACE, job, "call", None)
        assert isinstance(answer, SubmitReceipt)
        job_id = answer.job_id
    elif how == "nursery":
        (answer,) = await own.families.submit(NAMESPACE, "mail", [(job_id, job)])
        assert isinstance(answer, SubmitReceipt)
    else:
        child = pack("parent", 1, job_id, job)
        await own.link.call("HSET", keys.outbox(NAMESPACE, "parents"), job_id, child.entry)
        await own.outbox.deliver(NAMESPACE, "parents", [child])

    assert (await own.query.get(NAMESPACE, job_id)).queue == "mail"
    assert await own.query.queues(NAMESPACE) == ["mail"]


async def test_queues_have_their_numbers_whichever_comes_back_first(own: Store) -> None:
    """What other processes remember of numbers stays true when the names are made known in another order."""
    before = {name: await own.registry.queue_number(NAMESPACE, name) for name in ("a", "b", "c")}
    await own.link.call("FLUSHALL")

    after = {name: await own.registry.name_queue(NAMESPACE, name) for name in ("c", "a", "b")}

    assert after == before


async def test_queue_whose_number_was_given_away_takes_another(own: Store) -> None:
    """Two names never have one number: a process that comes late with one that is taken is given the next, and its jobs carry that."""
    number = queue_number(await submit(own))
    await own.link.call("FLUSHALL")
    await own.link.call("HSET", keys.queues(NAMESPACE), "first", number, f"#{number}", "first")

    job_id = await submit(own)

    assert queue_number(job_id) == number + 1
    assert (await own.query.get(NAMESPACE, job_id)).queue == "mail"


async def test_names_that_were_lost_alone_are_known_again_with_their_numbers(own: Store) -> None:
    """A queue whose jobs are left keeps its number; one of which nothing is left is not made up."""
    job_id = await submit(own)
    await submit(own, "other")
    await own.lifecycle.purge(NAMESPACE, "other")
    await own.link.call("DEL", keys.queues(NAMESPACE), keys.settings(NAMESPACE, "other"), keys.data_id())

    await own.declarations.tick()

    assert await own.query.queues(NAMESPACE) == ["mail"]
    assert (await own.query.get(NAMESPACE, job_id)).queue == "mail"


async def test_declarations_are_made_again_when_redis_was_emptied(own: Store) -> None:
    """Each once more, then whatever follows jobs is woken; a look that finds the same data changes nothing."""
    made: list[str] = []

    async def declare() -> None:
        made.append("declared")
        await trio.lowlevel.checkpoint()

    await own.declarations.declare(declare)
    own.link.on_reconnect.append(lambda: made.append("woken"))
    await own.declarations.tick()
    await own.link.call("FLUSHALL")
    await own.declarations.tick()
    await own.declarations.tick()

    assert made == ["declared", "declared", "woken"]


async def test_declaration_that_is_refused_is_made_again_until_it_is_not(own: Store, nursery: trio.Nursery) -> None:
    """The process goes on: others have taken all places meanwhile, and may give some up."""
    made: list[str] = []

    async def declare() -> None:  # noqa: ASYNC124 - a declaration
        made.append("types")
        if len(made) == 2:
            raise TooManyTypesError("email", 10, 100)

    await nursery.start(own.declarations.run)
    await own.declarations.declare(declare)
    await own.link.call("FLUSHALL")
    own.declarations._note_reconnect()
    await until(lambda: len(made) == 2)
    own.declarations._note_reconnect()
    await until(lambda: len(made) == 3)

    await own.declarations.tick()

    assert len(made) == 3


async def test_declarations_are_made_again_after_a_restart_of_redis(
    own: Store, redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """A start may have lost the newest writes, which nothing else would show."""
    declared = trio.Event()
    again = trio.Event()

    async def declare() -> None:
        (again if declared.is_set() else declared).set()
        await trio.lowlevel.checkpoint()

    await own.declarations.declare(declare)
    await nursery.start(own.declarations.run)
    redis_server.kill()
    redis_server.start()

    with trio.fail_after(30):
        await again.wait()


async def test_wait_for_a_job_that_redis_has_lost_ends(own: Store, nursery: trio.Nursery) -> None:
    """Whoever waits is told that there is no such job."""
    job_id = await submit(own)
    await nursery.start(own.declarations.run)
    async with trio.open_nursery() as waiting:

        async def wait() -> None:
            with pytest.raises(JobNotFoundError):
                await own.wait(NAMESPACE, job_id)

        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await own.link.call("FLUSHALL")
        waiting.cancel_scope.deadline = trio.current_time() + 30

    assert not waiting.cancel_scope.cancelled_caught
