"""Waiting for what nobody announces: that a process is gone, that Redis holds something. Bounded, so that a test fails, not hangs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE_SECONDS: Final = 30.0
"""Many times what is waited for takes on an idle machine; a loaded one is not wrong, only slow."""
_LOOK_SECONDS: Final = 0.01


async def until(claim: Callable[[], bool], *, within_seconds: float = PATIENCE_SECONDS) -> None:
    """Return once the claim holds."""
    with trio.fail_after(within_seconds):
        while not claim():  # noqa: ASYNC110 - what is looked at has no event
            await trio.sleep(_LOOK_SECONDS)


async def until_async(claim: Callable[[], Awaitable[bool]], *, within_seconds: float = PATIENCE_SECONDS) -> None:
    """Return once the claim, which asks somebody, holds."""
    with trio.fail_after(within_seconds):
        while not await claim():  # noqa: ASYNC110 - likewise
            await trio.sleep(_LOOK_SECONDS)


def runs(pid: int) -> bool:
    """Tell whether a process runs: one that is dead and not yet collected by its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
