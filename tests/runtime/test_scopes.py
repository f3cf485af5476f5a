from __future__ import annotations

import math
import time

import trio
import trio.testing

from gopher.runtime.scopes import CancelReason, RunningAttempt, Scopes
from tests.runtime.rig import attempt_of, claimed_job


def claimed_again(attempt: RunningAttempt) -> RunningAttempt:
    """Return a later attempt of the same job."""
    again = claimed_job()
    again.id = attempt.job.id
    return attempt_of(again)


def test_scopes_cancel_the_attempt_that_is_meant() -> None:
    """A cancel carries the lease token: another attempt of the job is not its business."""
    scopes = Scopes()
    attempt = attempt_of(claimed_job())
    scope = trio.CancelScope()
    scopes.add(attempt)
    attempt.begin(scope)

    scopes.request_cancel(attempt.job.id, attempt.job.token + 1, 1.0)
    before = attempt.cancel_reason
    scopes.request_cancel(attempt.job.id, attempt.job.token, 1.5)

    assert before is None
    assert attempt.cancel_reason is CancelReason.REQUESTED
    assert attempt.grace_seconds == 1.5
    assert scope.cancel_called


def test_scopes_keep_a_cancel_that_overtakes_its_claim() -> None:
    """A cancel for a job that is not here yet strikes when it comes."""
    scopes = Scopes()
    attempt = attempt_of(claimed_job())

    scopes.request_cancel(attempt.job.id, attempt.job.token, 1.5)
    scopes.add(attempt)

    assert attempt.cancel_reason is CancelReason.REQUESTED


def test_scopes_forget_the_oldest_early_cancels() -> None:
    """Every worker of a queue hears every cancel: those for the jobs of others do not pile up."""
    scopes = Scopes()
    first, last = attempt_of(claimed_job()), attempt_of(claimed_job())

    scopes.request_cancel(first.job.id, first.job.token, 1.0)
    for number in range(1000):
        scopes.request_cancel("another's", number, 1.0)
    scopes.request_cancel(last.job.id, last.job.token, 1.0)
    scopes.add(first)
    scopes.add(last)

    assert (first.cancel_reason, last.cancel_reason) == (None, CancelReason.REQUESTED)


def test_scopes_end_the_attempt_that_another_displaces() -> None:
    """A worker that claims again what it had lost runs the job once: the former attempt is ended, and keeps its slot until then."""
    scopes = Scopes()
    former = attempt_of(claimed_job())
    scopes.add(former)

    latter = claimed_again(former)
    scopes.add(latter)
    both = len(scopes)
    scopes.request_cancel(latter.job.id, latter.job.token, 1.0)
    scopes.remove(former)

    assert both == 2
    assert former.cancel_reason is CancelReason.LEASE_LOST
    assert latter.cancel_reason is CancelReason.REQUESTED
    assert scopes.snapshot() == [latter]


async def test_scopes_are_empty_when_the_displaced_has_gone_too(nursery: trio.Nursery) -> None:
    """A drain waits for the last handler, not for the last job."""
    scopes = Scopes()
    former = attempt_of(claimed_job())
    latter = claimed_again(former)
    scopes.add(former)
    scopes.add(latter)
    emptied = trio.Event()

    async def wait() -> None:
        await scopes.wait_empty()
        emptied.set()

    nursery.start_soon(wait)
    scopes.remove(latter)
    scopes.remove(latter)
    await trio.testing.wait_all_tasks_blocked()
    too_early = emptied.is_set()
    scopes.remove(former)
    await trio.testing.wait_all_tasks_blocked()

    assert not too_early
    assert emptied.is_set()


def test_scopes_lose_no_lease_of_an_attempt_that_has_gone() -> None:
    """What the keeper found too late, after the outcome was written, concerns nobody any more."""
    scopes = Scopes()
    former = attempt_of(claimed_job())
    scopes.add(former)
    scopes.remove(former)
    latter = claimed_again(former)
    scopes.add(latter)

    scopes.lose_lease(former)

    assert (former.cancel_reason, latter.cancel_reason) == (None, None)


def test_first_reason_of_a_cancel_stands() -> None:
    """A shutdown does not make an attempt that was to be cancelled anything else."""
    scopes = Scopes()
    attempt = attempt_of(claimed_job())
    scopes.add(attempt)

    scopes.request_cancel(attempt.job.id, attempt.job.token, 1.0)
    scopes.cancel_all(CancelReason.SHUTDOWN, 2.0)

    assert attempt.cancel_reason is CancelReason.REQUESTED
    assert attempt.grace_seconds == 1.0


def test_stuck_is_who_outlasts_its_cancel_and_the_grace() -> None:
    """A handler counts as stuck from the end of its grace until it ends, and never before it was cancelled."""
    attempt = attempt_of(claimed_job())
    never = attempt.is_stuck(math.inf)
    attempt.cancel(CancelReason.REQUESTED, grace_seconds=10.0)
    now = time.monotonic()

    in_grace, after_grace = attempt.is_stuck(now + 9), attempt.is_stuck(now + 11)
    attempt.is_over = True

    assert (never, in_grace, after_grace) == (False, False, True)
    assert not attempt.is_stuck(now + 11)


async def test_scopes_tell_when_something_runs(nursery: trio.Nursery) -> None:
    """All who wait learn of the first attempt; while one runs nobody waits."""
    scopes, told = Scopes(), []

    async def wait(name: str) -> None:
        await scopes.wait_filled()
        told.append(name)

    nursery.start_soon(wait, "a")
    nursery.start_soon(wait, "b")
    await trio.testing.wait_all_tasks_blocked()
    before = list(told)

    scopes.add(attempt_of(claimed_job()))
    await trio.testing.wait_all_tasks_blocked()
    await wait("c")

    assert (before, sorted(told[:2]), told[2:]) == ([], ["a", "b"], ["c"])


def test_scopes_count_who_has_gone() -> None:
    """Each attempt is counted once, when it is let go of."""
    scopes = Scopes()
    attempt = attempt_of(claimed_job())
    scopes.add(attempt)
    before = scopes.removed

    scopes.remove(attempt)
    scopes.remove(attempt)

    assert (before, scopes.removed) == (0, 1)
