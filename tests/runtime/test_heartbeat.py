from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from gopher.runtime import heartbeat
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


class Pipe:
    """What a parent reads, and what its child writes to."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self.beats = trio.lowlevel.FdStream(reader)


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    """A pipe that is closed at the end."""
    made = Pipe()
    yield made
    await made.beats.aclose()
    os.close(made.writer)


@pytest.mark.parametrize(("lease_seconds", "silence_seconds"), [(30.0, 30.0), (1.0, 5.0)])
async def test_silence_lasts_a_lease_and_five_seconds_at_least(
    pipe: Pipe, autojump_clock: MockClock, lease_seconds: float, silence_seconds: float
) -> None:
    """It is counted from the last beat."""
    os.write(pipe.writer, b".")

    seconds = await heartbeat.wait_silent(pipe.beats, lease_seconds)

    assert seconds == silence_seconds
    assert trio.current_time() == pytest.approx(silence_seconds)


async def test_process_that_has_not_begun_to_beat_is_not_silent(pipe: Pipe, autojump_clock: MockClock) -> None:
    """To import an application may take as long as it takes."""
    with trio.move_on_after(3600) as wait:
        await heartbeat.wait_silent(pipe.beats, 1.0)

    assert wait.cancelled_caught


async def test_time_in_which_the_parent_itself_was_stopped_counts_once(
    pipe: Pipe, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A machine that was suspended for an hour ends no process for it."""
    silent = trio.Event()

    async def watch() -> None:
        await heartbeat.wait_silent(pipe.beats, 30.0)
        silent.set()

    os.write(pipe.writer, b".")
    nursery.start_soon(watch)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(3600)
    await trio.testing.wait_all_tasks_blocked()
    was_silent = silent.is_set()
    nursery.cancel_scope.cancel()

    assert not was_silent


async def test_process_beats_and_keeps_the_pipe_to_itself(pipe: Pipe) -> None:
    """The first beat comes at once, and what the process starts inherits neither the pipe nor its number."""
    writer = os.dup(pipe.writer)
    os.set_inheritable(writer, True)
    environ = {heartbeat.VARIABLE: str(writer)}

    heartbeat.start_beating(environ)
    with trio.fail_after(PATIENCE_SECONDS):
        beat = await pipe.beats.receive_some()

    assert beat == b"."
    assert environ == {}
    assert not os.get_inheritable(writer)


def test_process_without_a_parent_does_not_beat() -> None:
    """There is no number to write to."""
    heartbeat.start_beating({})
