from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from gopher.errors import StoreUnavailableError
from gopher.runtime.claimer import Claimer, QueueSource
from gopher.runtime.inspector import Inspector
from gopher.runtime.listener import Listener
from gopher.runtime.orphans import Orphans
from gopher.runtime.promoter import Promoter
from gopher.runtime.scheduler import Scheduler
from gopher.runtime.slots import Slots
from gopher.store.type_set import ANY_TYPE
from tests.runtime.parts import Parts
from tests.runtime.rig import no_gates
from tests.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from gopher.store.codec import ClaimedJob
    from gopher.store.lifecycle import Lifecycle
    from gopher.store.store import Store
    from tests.runtime.rig import Bench

pytestmark = pytest.mark.leaves_keys  # jobs are left processing: their settler keeps the outcomes to itself


@pytest.fixture
async def parts(store: Store, namespace: str, bench: Bench, nursery: trio.Nursery) -> Parts:
    """A claimer of four slots and one queue, whose handlers run until the test ends."""
    bench.handler(sleeper)
    return Parts(store, namespace, bench, nursery)


async def sleeper(job: object, payload: object) -> None:
    await trio.sleep_forever()


async def test_claimer_never_exceeds_its_slots(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """With more jobs than slots it claims until the slots are taken, at most half of them in one call."""
    await parts.submit(10)

    await parts.claim_all()

    assert len(bench.scopes) == len(await parts.processing()) == 4
    assert len(parts.lifecycle.claims) == 2


async def test_claimer_fills_the_slots_it_is_given(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """More slots are taken at once, half of them in one call; of fewer nothing is claimed until there is room again."""
    await parts.submit(20)
    await parts.claim_all()

    parts.claimer.resize(10)
    await parts.claim_all()
    grown = len(bench.scopes)
    parts.claimer.resize(2)
    for attempt in bench.scopes.snapshot()[1:]:
        bench.scopes.remove(attempt)
    await parts.claim_all()

    assert (grown, parts.claimer.slots, len(bench.scopes)) == (10, 2, 2)
    assert len(parts.lifecycle.claims) == 5


async def test_claimer_that_runs_takes_more_slots_at_once(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """It is woken when slots are added."""
    await parts.submit(20)
    await nursery.start(parts.claimer.run, parts.slots)
    await until(lambda: len(bench.scopes) == 4)

    parts.claimer.resize(6)

    await until(lambda: len(bench.scopes) == 6)


async def test_claimer_tells_whether_jobs_wait(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """Jobs may wait as long as a queue gives all that is asked for."""
    await parts.submit(5)

    await parts.claim_all()
    before = parts.claimer.jobs_wait
    parts.claimer.resize(10)
    await parts.claim_all()

    assert (before, parts.claimer.jobs_wait) == (True, False)


async def test_claimer_goes_on_when_slots_are_free_again(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """An attempt whose outcome is written makes room for one more."""
    await parts.submit(10)
    await parts.claim_all()

    bench.scopes.remove(bench.scopes.snapshot()[0])
    await parts.claim_all()

    assert len(bench.scopes) == 4
    assert len(await parts.processing()) == 5


async def test_claimer_leaves_a_drained_queue_alone(parts: Parts, nursery: trio.Nursery) -> None:
    """A queue that gave less than was asked for is asked again only when something was said of it."""
    await parts.claim_all()
    await parts.claim_all()
    once = len(parts.lifecycle.claims)

    parts.claimer.wake("default")
    await parts.claim_all()

    assert (once, len(parts.lifecycle.claims)) == (1, 2)


async def test_claimer_keeps_a_wake_that_overtakes_a_reply(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """A job that is submitted while the reply "nothing there" is on its way is claimed all the same."""
    parts.lifecycle.before_reply = lambda: parts.claimer.wake("default")

    await parts.claim()
    parts.lifecycle.before_reply = lambda: None
    await parts.submit()
    await parts.claim_all()

    assert len(bench.scopes) == 1


async def test_claimer_takes_in_a_claim_that_it_is_cancelled_in(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """A drain in the middle of a claim loses none of the jobs that Redis has given."""
    await parts.submit(2)
    parts.lifecycle.gate = trio.Event()

    async def claim() -> None:
        with claiming:
            await parts.claimer.run(parts.slots)

    claiming = trio.CancelScope()
    nursery.start_soon(claim)
    await trio.testing.wait_all_tasks_blocked()
    claiming.cancel()
    await trio.testing.wait_all_tasks_blocked()
    is_over_early = claiming.cancelled_caught
    parts.lifecycle.gate.set()
    await until(lambda: claiming.cancelled_caught)

    assert not is_over_early
    assert sorted(attempt.job.id for attempt in bench.scopes.snapshot()) == await parts.processing()
    assert len(bench.scopes) == 2


async def test_claimer_claims_no_more_once_stopped(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """A drain takes in the claim under way and nothing more, though slots are free and jobs wait."""
    await parts.submit(10)
    parts.lifecycle.before_reply = parts.claimer.stop

    with trio.fail_after(PATIENCE_SECONDS):
        await parts.claimer.run(parts.slots)

    assert len(bench.scopes) == len(await parts.processing()) == 2


async def test_claimer_stops_though_no_reply_comes(bench: Bench, autojump_clock: trio.testing.MockClock) -> None:
    """A drain waits a moment for the reply to a claim, and not for as long as the link would."""

    class SilentLifecycle:
        async def claim(self, *args: object, **more: object) -> list[ClaimedJob]:
            await trio.sleep_forever()

    lifecycle: Lifecycle = SilentLifecycle()  # type: ignore[assignment] # a claimer asks nothing else of it
    claimer = Claimer(
        lifecycle,
        bench.scopes,
        no_gates(),
        types=ANY_TYPE,
        namespace="n",
        worker="w",
        slots=4,
        lease_seconds=30.0,
        poll_seconds=5.0,
    )
    claimer.add_source(QueueSource("default", 1, bench.handed))

    async with trio.open_nursery() as nursery:
        await nursery.start(claimer.run, Slots(bench.runner, nursery))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        claimer.stop()

    assert trio.current_time() - began <= 1.0


async def test_claimer_stops_at_once_when_it_has_nothing_to_do(bench: Bench, autojump_clock: trio.testing.MockClock) -> None:
    """A claimer that waits for news ends with the drain, and claims no more."""
    claimer = Claimer(
        None,  # type: ignore[arg-type] # it never claims
        bench.scopes,
        no_gates(),
        types=ANY_TYPE,
        namespace="n",
        worker="w",
        slots=4,
        lease_seconds=30.0,
        poll_seconds=5.0,
    )

    async with trio.open_nursery() as nursery:
        await nursery.start(claimer.run, Slots(bench.runner, nursery))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        claimer.stop()

    assert trio.current_time() == began


async def test_claimer_asks_again_for_a_lost_reply(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """After a lost reply the same claim gives the same jobs, and their leases last from when it was made again."""
    await parts.submit(4)
    parts.lifecycle.lose = 1

    with pytest.raises(StoreUnavailableError):
        await parts.claim()
    held = await parts.processing()
    lease_until = parts.sources["default"].lease_until
    again_at = time.monotonic()
    await parts.claim()

    (_, first), (_, second) = parts.lifecycle.claims
    assert first == second
    assert sorted(attempt.job.id for attempt in bench.scopes.snapshot()) == held == await parts.processing()
    (later,) = {attempt.lease_until for attempt in bench.scopes.snapshot()}
    assert later == parts.sources["default"].lease_until > lease_until
    assert later >= again_at + 30.0


async def test_claimer_looks_again_after_a_reply_that_was_given_again(
    parts: Parts, bench: Bench, nursery: trio.Nursery
) -> None:
    """It tells of the moment of the first: what was enqueued since is taken, though its wake-up came before the reply."""
    await parts.submit(1)
    parts.lifecycle.lose = 1
    with pytest.raises(StoreUnavailableError):
        await parts.claim()
    await parts.submit(1)
    parts.claimer.wake("default")

    await parts.claim_all()

    assert len(bench.scopes) == 2


async def test_claimer_asks_for_a_lost_reply_before_it_turns_elsewhere(
    store: Store, namespace: str, bench: Bench, nursery: trio.Nursery
) -> None:
    """The slots of jobs that were claimed and not heard of are given to no other queue."""
    bench.handler(sleeper)
    parts = Parts(store, namespace, bench, nursery, slots=2, queues={"a": 1, "b": 1})
    await parts.submit(4, queue="a")
    await parts.submit(4, queue="b")
    parts.lifecycle.lose = 2

    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await parts.claim()
    await parts.claim_all()

    assert len(set(parts.lifecycle.claims[:3])) == 1
    assert len(bench.scopes) == 2
    assert len(await parts.processing("a")) == len(await parts.processing("b")) == 1


async def test_claimer_goes_on_once_redis_answers_again(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """Failures delay claims; they do not end them."""
    await parts.submit(1)
    parts.lifecycle.lose = 2

    await nursery.start(parts.claimer.run, parts.slots)
    await until(lambda: len(bench.scopes) == 1)

    assert len({claim_id for _, claim_id in parts.lifecycle.claims[:3]}) == 1


async def test_claimer_shares_itself_out_by_weight(store: Store, namespace: str, bench: Bench, nursery: trio.Nursery) -> None:
    """While all queues have jobs each gets its share of the claims; the share of an empty one is given away."""
    ran: Counter[str] = Counter()

    @bench.handler
    async def work(job: object, payload: object) -> None:
        ran[job.queue] += 1  # type: ignore[attr-defined] # the test asks for no type
        await trio.lowlevel.checkpoint()

    parts = Parts(store, namespace, bench, nursery, slots=2, queues={"a": 3, "b": 2, "c": 1, "empty": 5})
    for queue in "abc":
        await parts.submit(60, queue=queue)

    await parts.claim()  # finds the empty one empty
    for _ in range(60):
        await parts.claim()
        await trio.testing.wait_all_tasks_blocked()

    assert ran == {"a": 30, "b": 20, "c": 10}


async def test_claimer_looks_by_itself_now_and_then(store: Store, namespace: str, bench: Bench, nursery: trio.Nursery) -> None:
    """A job that no push has told of is found by the poll."""
    bench.handler(sleeper)
    parts = Parts(store, namespace, bench, nursery, poll_seconds=0.02)
    await nursery.start(parts.claimer.run, parts.slots)
    await until(lambda: bool(parts.lifecycle.claims))

    await parts.submit()

    await until(lambda: len(bench.scopes) == 1)


async def listen(parts: Parts, bench: Bench) -> None:
    promoter = Promoter(parts.lifecycle, namespace=parts.namespace, queue="default", poll_seconds=3600)
    listener = Listener(
        control=parts.store.control,
        namespace=parts.namespace,
        queue="default",
        claimer=parts.claimer,
        promoter=promoter,
        scheduler=Scheduler(parts.store.schedules, namespace=parts.namespace, queue="default"),
        scopes=bench.scopes,
        orphans=Orphans(
            parts.store.families, parts.store.lifecycle, namespace=parts.namespace, queue="default", sweep_seconds=3600
        ),
        inspector=Inspector(parts.store.trees, bench.registry, bench.scopes, namespace=parts.namespace, queue="default"),
        drain=lambda _worker, _grace: None,
    )
    await listener.start()


async def test_claimer_is_woken_by_a_submit(store: Store, parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """An idle worker hears of a new job, and need not look."""
    async with parts.claimer.hear_rings(store.control):
        await nursery.start(parts.claimer.run, parts.slots)
        await until(lambda: parts.sources["default"].is_drained)

        await parts.submit()

        await until(lambda: len(bench.scopes) == 1)


async def test_claimer_with_no_room_has_another_worker_rung(
    store: Store, namespace: str, bench: Bench, nursery: trio.Nursery
) -> None:
    """A worker that was idle in one queue and has been filled from another does not keep its ring to itself."""
    bench.handler(sleeper)
    parts = Parts(store, namespace, bench, nursery, slots=2, queues={"idle": 1, "busy": 1})
    other = Parts(store, namespace, bench, nursery, queues={"idle": 1}, worker="worker-2")
    rung: list[str] = []
    async with parts.claimer.hear_rings(store.control), store.control.hear_rings(namespace, "idle", "worker-2", rung.append):
        await parts.claim()
        await parts.claim()
        await other.claim()
        await parts.submit(2, queue="busy")
        parts.claimer.wake("busy")
        await parts.claim_all()

        await parts.submit(queue="idle")
        await until(lambda: parts.sources["idle"].rung_for == ["work"])
        await parts.claim()
        await until(lambda: rung == ["work"])


async def test_claimer_takes_nothing_from_a_paused_queue_until_it_is_resumed(
    parts: Parts, bench: Bench, nursery: trio.Nursery
) -> None:
    """A resume wakes the workers at once."""
    await listen(parts, bench)
    await parts.lifecycle.pause(parts.namespace, "default")
    await parts.submit()
    await nursery.start(parts.claimer.run, parts.slots)
    await until(lambda: parts.sources["default"].is_drained)
    held = len(bench.scopes)

    await parts.lifecycle.resume(parts.namespace, "default")
    with trio.fail_after(PATIENCE_SECONDS):
        await until(lambda: len(bench.scopes) == 1)

    assert held == 0


async def test_cancel_overtakes_its_claim(parts: Parts, bench: Bench, nursery: trio.Nursery) -> None:
    """A cancel that arrives before the reply of the claim that it is about ends the attempt before it has begun."""
    await listen(parts, bench)
    (job_id,) = await parts.submit()

    def hear_of_the_cancel() -> None:
        assert parts.lifecycle.latest is not None
        (job,) = parts.lifecycle.latest.jobs
        bench.scopes.request_cancel(job_id, job.token, 2.0)

    parts.lifecycle.before_reply = hear_of_the_cancel
    await parts.claim()
    await until(lambda: bool(bench.handed.settlements))

    assert bench.outcome.move.value == "acknowledge_cancel"
