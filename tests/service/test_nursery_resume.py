"""RunNursery after a cut: what a client that comes back is told, what one that does not leaves behind, and who may come back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.errors import InvalidRequestError, NurseryGoneError
from gopher.job import JobState
from gopher.store import keys
from gopher.wire.status import NurseryResumedError
from tests.service.nursery_rig import CLOSE, LEAVE, cancel, start
from tests.service.test_nurseries import ALL, COLLECT, ends, ids
from tests.waiting import until, until_async

if TYPE_CHECKING:
    from gopher.errors import GopherError
    from tests.service.conftest import Rig
    from tests.service.nursery_rig import Desk, Said


async def count(desk: Desk) -> int:
    return len((await desk.store.query.list_jobs(desk.namespace, size=100))[0])


async def test_client_that_comes_back_is_told_all_once_more(desk: Desk, rig: Rig) -> None:
    """On another server: what has ended meanwhile too; what it says again starts nothing, what it says anew does."""
    talk = desk.dial(desk.open(COLLECT), start(1), start(2))
    await talk.hear("started", 2)
    await rig.complete()
    await talk.hear("ended")
    await talk.vanish()
    await rig.fail()
    again = desk.dial(desk.open(COLLECT, token=talk.token), start(2), start(3), CLOSE, server=await desk.server())
    await again.hear("started", 3)
    await again.hear("ended", 2)
    await rig.complete()
    await again.leave()

    assert again.nursery_id == talk.nursery_id
    assert {number: ids(again)[number] for number in (1, 2)} == ids(talk)
    assert ends(again) == {
        1: (JobState.COMPLETED, False),
        2: (JobState.FAILED, False),
        3: (JobState.COMPLETED, False),
    }
    assert await count(desk) == 3
    assert await desk.is_forgotten(talk.nursery_id)


async def test_policy_holds_after_a_cut(desk: Desk, rig: Rig) -> None:
    """A failure that nobody has heard cancels the others once the client is back."""
    talk = desk.dial(desk.open(ALL), start(1), start(2))
    await talk.hear("started", 2)
    await talk.vanish()
    await rig.fail()
    again = desk.dial(desk.open(ALL, token=talk.token), start(3), CLOSE)
    await again.leave()

    assert ends(again)[1] == (JobState.FAILED, False)
    assert ends(again)[2] == (JobState.CANCELLED, True)
    assert ends(again)[3][1]


async def test_what_the_nursery_has_cancelled_is_no_failure_after_a_cut(desk: Desk) -> None:
    """A cancelled sibling does not count as one that failed by itself, and those that followed it go on."""
    talk = desk.dial(desk.open(ALL), start(1))
    await talk.hear("started")
    talk.say(cancel(), start(2))
    await talk.hear("ended")
    await talk.hear("started", 2)
    await talk.vanish()
    again = desk.dial(desk.open(ALL, token=talk.token))
    await again.hear("ended")
    states = [await desk.state(job_id) for job_id in ids(again).values()]
    again.say(cancel(), CLOSE)
    await again.leave()

    assert sorted(states) == [JobState.CANCELLED, JobState.ENQUEUED]
    assert {by_nursery for _, by_nursery in ends(again).values()} == {True}


async def test_nursery_is_not_over_before_its_client_knows(desk: Desk, rig: Rig) -> None:
    """All have ended and the cut comes before the client has heard it: it comes back and hears all."""
    talk = desk.dial(desk.open(), start(1), CLOSE)
    await talk.hear("started")
    await rig.complete()
    await talk.hear("joined")
    await talk.vanish()
    again = desk.dial(desk.open(token=talk.token), CLOSE)
    await again.leave()

    assert again.kinds() == ["opened", "started", "ended", "joined"]
    assert await desk.is_forgotten(talk.nursery_id)


async def test_end_of_the_stream_alone_is_no_close(desk: Desk) -> None:
    """It may be the first sign of a cut: the nursery stands, and its client may come back."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    talk.half_close()
    error = await talk.end()
    again = desk.dial(desk.open(token=talk.token), cancel(), CLOSE)
    await again.leave()

    assert reason_of(error) == "OUT_OF_ORDER"
    assert ends(again) == {1: (JobState.CANCELLED, True)}


async def test_closed_stream_may_end_on_the_client_s_side(desk: Desk, rig: Rig) -> None:
    """One that has said all hears all; as it cannot leave any more, the nursery stands for its grace."""
    talk = desk.dial(desk.open(grace_seconds=1), start(1), CLOSE)
    talk.half_close()
    await talk.hear("started")
    await rig.complete()
    assert await talk.end() is None

    assert talk.kinds()[-1] == "joined"
    await desk.sweep(talk.nursery_id)


async def test_children_of_a_client_that_has_vanished_are_cancelled(desk: Desk, rig: Rig) -> None:
    """After its grace, those that run and those that wait, of any queue, but not the detached; then it is too late to come back."""
    talk = desk.dial(desk.open(grace_seconds=1), start(1), start(2, queue="other"), start(3, detached=True))
    await talk.hear("started", 3)
    (running,) = await rig.claim()
    await talk.vanish()
    await desk.sweep(talk.nursery_id)

    job = await desk.store.query.get(desk.namespace, running.id)
    assert job.cancel_reason == f"its parent {talk.nursery_id} has gone"
    assert await desk.state(ids(talk)[2]) is JobState.CANCELLED
    assert await desk.state(ids(talk)[3]) is JobState.ENQUEUED
    late = desk.dial(desk.open(token=talk.token))
    assert isinstance(await late.end(), NurseryGoneError)


async def test_client_that_stays_is_not_swept(desk: Desk) -> None:
    """While its stream lasts the nursery stands, for longer than its grace."""
    talk = desk.dial(desk.open(grace_seconds=1), start(1))
    await talk.hear("started")
    attached = keys.attached(desk.namespace, "default")
    first = await desk.store.link.call("ZSCORE", attached, talk.nursery_id)

    async def is_renewed() -> bool:
        await desk.store.lifecycle.reap(desk.namespace, "default")
        expiry = await desk.store.link.call("ZSCORE", attached, talk.nursery_id)
        return expiry is not None and float(expiry) > float(first) + 1_000

    await until_async(is_renewed)
    assert await desk.state(ids(talk)[1]) is JobState.ENQUEUED
    talk.say(cancel(), CLOSE)
    await talk.leave()


async def test_nursery_that_was_swept_ends_its_stream(desk: Desk) -> None:
    """A server that could not keep it (it hung, or Redis was away) tells the client that it is gone."""
    talk = desk.dial(desk.open(grace_seconds=1), start(1))
    await talk.hear("started")
    await desk.store.link.call("ZREM", keys.attached(desk.namespace, "default"), talk.nursery_id)
    error = await talk.end()
    await desk.store.link.call("ZADD", keys.attached(desk.namespace, "default"), "1", talk.nursery_id)
    await desk.sweep(talk.nursery_id)

    assert isinstance(error, NurseryGoneError)


async def test_second_stream_takes_the_nursery_over(desk: Desk, rig: Rig) -> None:
    """On the same server: the earlier stream ends, and the later one hears of every end."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    again = desk.dial(desk.open(token=talk.token))
    error = await talk.end()
    await again.hear("started")
    await rig.complete()
    await again.hear("ended")
    again.say(CLOSE)
    await again.leave()

    assert isinstance(error, NurseryResumedError)
    assert ends(again) == {1: (JobState.COMPLETED, False)}


async def test_two_streams_start_a_child_once(desk: Desk, rig: Rig) -> None:
    """Two servers that both think to have the client, as after a cut that one has not seen, are told the same start: it is one job."""
    talk = desk.dial(desk.open(COLLECT))
    await talk.hear("opened")
    again = desk.dial(desk.open(COLLECT, token=talk.token), server=await desk.server())
    await again.hear("opened")
    for number in range(1, 21):
        talk.say(start(number))
        again.say(start(number))
    await talk.hear("started", 20)
    await again.hear("started", 20)
    for _ in range(20):
        await rig.complete()
    await again.hear("ended", 20)
    await talk.hear("ended", 20)
    talk.say(CLOSE)
    again.say(CLOSE)
    await talk.leave()
    await again.leave()

    assert ids(talk) == ids(again)
    assert await count(desk) == 20


async def test_child_that_was_written_down_and_not_stored_is_stored_when_said_again(desk: Desk, rig: Rig) -> None:
    """A server that died between the two has lost nothing: the client has no answer, and says it again."""
    talk = desk.dial(desk.open())
    await talk.hear("opened")
    await talk.vanish()
    job_id = await desk.store.families.reserve(desk.namespace, "other")
    family = keys.family(desk.namespace, "default", talk.nursery_id)
    await desk.store.link.call("HSET", family, "0.1.1", f"{job_id} cancel -")
    again = desk.dial(desk.open(token=talk.token), start(1, queue="other"), CLOSE)
    await again.hear("started")
    (job,) = await rig.claim("other")
    await desk.store.lifecycle.cancel(desk.namespace, job.id, reason="", grace_ms=0)
    await desk.store.lifecycle.reap(desk.namespace, "other")

    assert ids(again) == {1: job_id}
    await again.vanish()
    last = desk.dial(desk.open(token=talk.token), cancel(), CLOSE)
    await until(lambda: last.unheard == 0)
    await last.vanish()
    await desk.store.link.call("DEL", family)
    await desk.store.link.call("ZREM", keys.attached(desk.namespace, "default"), talk.nursery_id)


async def test_deleted_child_is_told_as_ended(desk: Desk, rig: Rig) -> None:
    """One that is kept no more when its client comes back has ended, nobody knows how: with no job."""
    talk = desk.dial(desk.open(COLLECT), start(1))
    await talk.hear("started")
    await talk.vanish()
    await desk.store.lifecycle.delete(desk.namespace, ids(talk)[1])
    again = desk.dial(desk.open(COLLECT, token=talk.token), CLOSE)
    await again.leave()

    assert ends(again) == {1: (None, False)}


@pytest.mark.parametrize("token", ["x", "!", "é", base64.urlsafe_b64encode(b"x" * 52).decode(), "A" * 100_000])
async def test_forged_token_opens_nothing(desk: Desk, token: str) -> None:
    """Nobody can guess his way into a nursery."""
    talk = desk.dial(desk.open(token=token))

    assert reason_of(await talk.end()) == "BAD_RESUME_TOKEN"


async def test_token_of_another_namespace_opens_nothing(desk: Desk) -> None:
    """A right is of one namespace, also where the other knows it."""
    talk = desk.dial(desk.open(), start(1))
    await talk.hear("started")
    other = desk.dial(desk.open(token=talk.token, namespace=f"{desk.namespace}x"))
    error = await other.end()
    talk.say(cancel(), CLOSE)
    await talk.leave()

    assert reason_of(error) == "BAD_RESUME_TOKEN"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([start(0)], "OUT_OF_RANGE"),
        ([start(-1)], "OUT_OF_RANGE"),
        ([start(10_001)], "OUT_OF_RANGE"),
        ([start(1 << 62)], "OUT_OF_RANGE"),
        ([CLOSE, start(1)], "OUT_OF_ORDER"),
        ([LEAVE], "OUT_OF_ORDER"),
        ([cancel(through=-1)], "OUT_OF_RANGE"),
        ([cancel(reason="x" * 300)], "OUT_OF_RANGE"),
    ],
)
async def test_bad_message_ends_the_stream(desk: Desk, said: list[Said], reason: str) -> None:
    """With its reason, and nothing is started by it."""
    talk = desk.dial(desk.open(grace_seconds=1), *said)
    error = await talk.end()
    if talk.heard("opened"):
        await desk.sweep(talk.nursery_id)

    assert reason_of(error) == reason
    assert await count(desk) == 0


async def test_first_message_must_open(desk: Desk) -> None:
    """Anything else, and nothing at all, is refused; and so is a second open."""
    first = desk.dial(start(1))
    nothing = desk.dial()
    nothing.half_close()
    second = desk.dial(desk.open(grace_seconds=1), desk.open())

    assert reason_of(await first.end()) == "REQUIRED"
    assert reason_of(await nothing.end()) == "REQUIRED"
    assert reason_of(await second.end()) == "OUT_OF_ORDER"


async def test_bad_opening_says_every_fault(desk: Desk) -> None:
    """Policy, grace and queue at once; the namespace first of all."""
    bad = desk.dial(desk.open(9, grace_seconds=301, queue="a:b"))
    elsewhere = desk.dial(desk.open(namespace="a:b"))
    error = await bad.end()

    assert isinstance(error, InvalidRequestError)
    assert [fault.field for fault in error.violations] == ["open.queue", "open.policy", "open.grace"]
    assert reason_of(await elsewhere.end()) == "BAD_NAME"


def reason_of(error: GopherError | None) -> str:
    assert isinstance(error, InvalidRequestError)
    return error.violations[0].reason


async def test_children_that_were_on_their_way_at_a_cut_are_started_once(desk: Desk) -> None:
    """Those that the first stream has just stored, and those that it never came to store, are all there once."""
    talk = desk.dial(desk.open(), *(start(number) for number in range(1, 301)))
    await talk.hear("opened")
    await talk.vanish()
    again = desk.dial(desk.open(token=talk.token), *(start(number) for number in range(1, 301)), cancel(), CLOSE)
    with trio.fail_after(60):
        await again.leave()

    assert sorted(ends(again)) == list(range(1, 301))
    jobs, _ = await desk.store.query.list_jobs(desk.namespace, size=1_000)
    assert len(jobs) == len(ids(again))
