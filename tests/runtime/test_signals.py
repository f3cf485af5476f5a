from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from gopher.runtime.signals import watch_signals


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM, signal.SIGINT)]
)
async def test_first_signal_drains_and_each_further_one_aborts(
    nursery: trio.Nursery, numbers: tuple[signal.Signals, ...]
) -> None:
    """SIGTERM and SIGINT are the same: one asks, the next insists."""
    told: list[str] = []

    await nursery.start(
        lambda task_status: watch_signals(
            drain=lambda: told.append("drain"), abort=lambda: told.append("abort"), task_status=task_status
        )
    )
    for number in numbers:
        signal.raise_signal(number)
        await trio.testing.wait_all_tasks_blocked(0.01)

    assert told == ["drain", "abort", "abort"]
