"""RunNursery on a real Redis: what a client is told of its children, what ends them, and what the policies do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gopher.job import JobState, Move, Outcome
from gopher.nursery import MAX_WIDTH
from gopher.service import nursery_session
from gopher.wire import convert
from gopher.wire.status import from_status
from tests.service.nursery_rig import CLOSE, cancel, start
from tests.waiting import until

if TYPE_CHECKING:
    import pytest

    from tests.service.conftest import Rig
    from tests.service.nursery_rig import Desk, Talk

ALL, ANY, COLLECT = 1, 2, 3


def ends(talk: Talk) -> dict[int, tuple[JobState | None, bool]]:
    """Return how each child has ended: its state, and whether its nursery has cancelled it."""
    return {
        answer.ended.number: (convert.STATE_OF.get(answer.ended.job.state), answer.ended.cancelled_by_nursery)
        for answer in talk.heard("ended")
    }


def ids(talk: Talk) -> dict[int, str]:
    return {answer.started.number: answer.started.job_id for answer in talk.heard("started")}


async def test_client_hears_of_each_child_in_order(desk: Desk, rig: Rig) -> None:
    """It hears opened, then started and ended a child, then joined; once it has left, Redis holds nothing of the nursery."""
    talk = desk.dial(desk.open(), start(1, payload=b"1"), start(2, payload=b"2"), CLOSE)
    await talk.hear("started", 2)
    done = [await rig.complete(), await rig.complete()]
    await talk.leave()

    assert talk.kinds() == ["opened", "started", "started", "ended", "ended", "joined"]
    assert [answer.ended.job.id for answer in talk.heard("ended")] == done
    assert [answer.ended.number for answer in talk.heard("ended")] == [1, 2]
    assert talk.heard("ended")[0].ended.job.result == b'{"done":true}'
    assert await desk.is_forgotten(talk.nursery_id)
    job = await desk.store.query.get(desk.namespace, done[0])
    assert (job.parent_id, job.root_id) == (talk.nursery_id, talk.nursery_id)


async def test_nursery_without_children_is_joined_at_once(desk: Desk) -> None:
    """There is nothing to wait for."""
    talk = desk.dial(desk.open(), CLOSE)
    await talk.leave()

    assert talk.kinds() == ["opened", "joined"]
    assert await desk.is_forgotten(talk.nursery_id)


async def test_children_go_to_queues_of_their_own(desk: Desk, rig: Rig) -> None:
    """A nursery is kept in one queue, its children may be of others."""
    talk = desk.dial(desk.open(queue="here"), start(1, queue="there"), start(2, queue="here"), CLOSE)
    await talk.hear("started", 2)
    for queue in ("there", "here"):
        (job,) = await rig.claim(queue)
        await desk.store.lifecycle.settle(desk.namespace, queue, [rig.settlement(job, Move.COMPLETE)])
    await talk.leave()

    assert ends(talk) == {1: (JobState.COMPLETED, False), 2: (JobState.COMPLETED, False)}
    assert await desk.is_forgotten(talk.nursery_id, "here")


async def test_failure_cancels_the_others(desk: Desk, rig: Rig) -> None:
    """Of policy all: those that wait are cancelled by the nursery; one that is said after that is not started."""
    talk = desk.dial(desk.open(ALL), *(start(number) for number in (1, 2, 3)))
    await talk.hear("started", 3)
    await rig.fail()
    await talk.hear("ended", 3)
    talk.say(start(4), CLOSE)
    await talk.leave()

    assert ends(talk) == {
        1: (JobState.FAILED, False),
        2: (JobState.CANCELLED, True),
        3: (JobState.CANCELLED, True),
        4: (None, True),
    }
    assert set(ids(talk)) == {1, 2, 3}


async def test_first_to_complete_cancels_the_others(desk: Desk, rig: Rig) -> None:
    """Of policy any: a failure decides nothing, the first that completes does."""
    talk = desk.dial(desk.open(ANY), *(start(number) for number in (1, 2, 3)), CLOSE)
    await talk.hear("started", 3)
    await rig.fail()
    await talk.hear("ended", 1)
    await rig.complete()
    await talk.leave()

    assert ends(talk) == {1: (JobState.FAILED, False), 2: (JobState.COMPLETED, False), 3: (JobState.CANCELLED, True)}


async def test_collect_cancels_none(desk: Desk, rig: Rig) -> None:
    """Of policy collect: each ends by itself."""
    talk = desk.dial(desk.open(COLLECT), start(1), start(2), CLOSE)
    await talk.hear("started", 2)
    await rig.fail()
    await rig.complete()
    await talk.leave()

    assert ends(talk) == {1: (JobState.FAILED, False), 2: (JobState.COMPLETED, False)}


async def test_child_cancelled_by_somebody_else_is_a_failure(desk: Desk) -> None:
    """Only what the nursery itself has cancelled is none."""
    talk = desk.dial(desk.open(ALL), start(1), start(2), CLOSE)
    await talk.hear("started", 2)
    await desk.store.lifecycle.cancel(desk.namespace, ids(talk)[1], reason="by hand", grace_ms=0)
    await talk.leave()

    assert ends(talk) == {1: (JobState.CANCELLED, False), 2: (JobState.CANCELLED, True)}


async def test_refused_children_are_answered_with_why(desk: Desk, rig: Rig) -> None:
    """Each refusal stands in the child's answer and costs the others nothing under collect; nothing of them is kept."""
    held = await rig.submit(unique_key="k")
    talk = desk.dial(
        desk.open(COLLECT),
        start(1, payload=b"{"),
        start(2, unique_key="k"),
        start(3, payload=b'"' + b"x" * 2000 + b'"'),
        start(4, type=""),
        CLOSE,
    )
    await talk.leave()

    reasons = {answer.started.number: from_status(answer.started.error).reason for answer in talk.heard("started")}
    assert reasons == {1: "BAD_JSON", 2: "UNIQUE_HELD", 3: "PAYLOAD_TOO_LARGE", 4: "REQUIRED"}
    assert [each.id for each in (await desk.store.query.list_jobs(desk.namespace, size=10))[0]] == [held]


async def test_unknown_type_is_refused_and_ends_the_others(desk: Desk) -> None:
    """A refusal is a failure, unless the client has said that it may be."""
    server = await desk.server(accept_unknown_types=False)
    await desk.store.registry.add_types(desk.namespace, ["email"])
    talk = desk.dial(desk.open(ALL), start(1), start(2, type="x", may_be_refused=True), server=server)
    await talk.hear("started", 2)
    spared = ends(talk)
    talk.say(start(3, type="x"), CLOSE)
    await talk.leave()

    assert spared == {}
    assert ends(talk) == {1: (JobState.CANCELLED, True)}
    refusals = [answer.started for answer in talk.heard("started") if answer.started.HasField("error")]
    assert [from_status(refusal.error).reason for refusal in refusals] == ["UNKNOWN_JOB_TYPE"] * 2


async def test_number_said_twice_starts_nothing(desk: Desk, rig: Rig) -> None:
    """It is answered again, before its end and after, also when what is said with it differs."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    talk.say(start(1, payload=b"2"))
    await talk.hear("started", 2)
    await rig.complete()
    await talk.hear("ended")
    talk.say(start(1), CLOSE)
    await talk.leave()

    assert len({answer.started.job_id for answer in talk.heard("started")}) == 1
    assert len(talk.heard("started")) == 3
    assert len(talk.heard("ended")) == 2
    assert len((await desk.store.query.list_jobs(desk.namespace, size=10))[0]) == 1


async def test_cancel_ends_what_was_started_and_no_more(desk: Desk, rig: Rig) -> None:
    """It names the last number that it means; others go on, and may follow; one that is detached goes on alone."""
    talk = desk.dial(desk.open(), start(1), start(2, detached=True), start(3), start(4), start(5, detached=True))
    await talk.hear("started", 5)
    talk.say(cancel(through=3), start(6), CLOSE)
    await talk.hear("ended", 2)
    for _ in range(4):
        await rig.complete()
    await talk.leave()

    assert {number for number, (_, by_nursery) in ends(talk).items() if by_nursery} == {1, 3}
    assert [ends(talk)[number][0] for number in (4, 5, 6)] == [JobState.COMPLETED] * 3


async def test_processing_child_is_cancelled_and_awaited(desk: Desk, rig: Rig) -> None:
    """It has ended only when its handler has."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    (job,) = await rig.claim()
    talk.say(cancel(), CLOSE)
    await until(lambda: talk.unheard == 0)
    before = ends(talk)
    await rig.settle(job, Move.ACKNOWLEDGE_CANCEL, Outcome.CANCELLED)
    await talk.leave()

    assert before == {}
    assert ends(talk) == {1: (JobState.CANCELLED, True)}


async def test_detached_child_is_left_behind(desk: Desk) -> None:
    """Once it is stored, a nursery that was cancelled waits for it no more; it goes on alone."""
    talk = desk.dial(desk.open(), start(1, detached=True), cancel(), CLOSE)
    await talk.leave()

    assert talk.kinds() == ["opened", "started", "joined"]
    assert await desk.is_forgotten(talk.nursery_id)
    assert await desk.state(ids(talk)[1]) is JobState.ENQUEUED


async def test_heartbeats_come_while_there_is_nothing_to_tell(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a client, and what lies between, knows that the stream lives."""
    monkeypatch.setattr(nursery_session, "HEARTBEAT_SECONDS", 0.01)
    talk = desk.dial(desk.open())
    await talk.hear("heartbeat", 3)
    talk.say(CLOSE)
    await talk.leave()


async def test_client_that_does_not_leave_is_let_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that has told all ends soon; the nursery stands for its grace and is then forgotten."""
    monkeypatch.setattr(nursery_session, "LEAVE_SECONDS", 0.01)
    talk = desk.dial(desk.open(grace_seconds=1), CLOSE)
    await talk.hear("joined")
    assert await talk.end() is None

    await desk.sweep(talk.nursery_id)


async def test_client_that_only_talks_is_held_up(desk: Desk) -> None:
    """One that says the same again and again, and does not listen, makes the server keep no more than a bound."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    talk.gate = trio.Event()
    talk.say(*[start(1)] * 5_000)
    await trio.testing.wait_all_tasks_blocked(0.1)
    unheard = talk.unheard
    talk.gate.set()
    talk.say(cancel(), CLOSE)
    await talk.leave()

    assert unheard > 3_000


async def test_ten_thousand_children_and_no_more(desk: Desk) -> None:
    """That many are taken, in bounded portions; the next number is out of range, and ends the stream with an error."""
    talk = desk.dial(desk.open(), *(start(number) for number in range(1, MAX_WIDTH + 1)))
    with trio.fail_after(120):
        while len(talk.heard("started")) < MAX_WIDTH:
            await trio.testing.wait_all_tasks_blocked(0.05)
    talk.say(start(MAX_WIDTH + 1))
    error = await talk.end()
    again = desk.dial(desk.open(token=talk.token), cancel(), CLOSE)
    with trio.fail_after(120):
        while not again.heard("joined"):
            await trio.testing.wait_all_tasks_blocked(0.05)
    await again.leave()

    assert error is not None
    assert "10,000" in error.message
    assert len(set(ids(talk).values())) == MAX_WIDTH
    assert {by_nursery for _, by_nursery in ends(again).values()} == {True}
