"""Says where code stands: in which line of the handler's own, and by which calls."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

_MOST_FRAMES: Final = 60
"""Chosen: of one stack, from its innermost end."""


def place_of(frames: Sequence[FrameType], module: str) -> str:
    """Return the innermost place of an application's own code as `file:line in function`; '' where there are no frames.

    Args:
        frames: The innermost last.
        module: Of the application: what belongs to its outermost package counts as its own. Where none does, any does.
    """
    package = module.partition(".")[0]
    own = [frame for frame in frames if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def shown(frames: Sequence[FrameType]) -> str:
    """Return a stack as a traceback shows it, the innermost frame last."""
    pairs = ((frame, frame.f_lineno) for frame in frames[-_MOST_FRAMES:])
    return "".join(traceback.StackSummary.extract(pairs).format())


def frames_of_thread(ident: int) -> list[FrameType]:
    """Return the frames of a thread, the innermost last; none where it has ended."""
    found: list[FrameType] = []
    frame = sys._current_frames().get(ident)  # noqa: SLF001 - CPython's documented way, in spite of its name
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def frames_of_coroutine(coroutine: object) -> list[FrameType]:
    """Return the frames of a suspended coroutine, and of what it awaits in turn, the innermost last."""
    found: list[FrameType] = []
    while coroutine is not None:
        frame = next(_attributes(coroutine, "cr_frame", "gi_frame", "ag_frame"), None)
        if frame is None:
            break
        found.append(frame)
        coroutine = next(_attributes(coroutine, "cr_await", "gi_yieldfrom", "ag_await"), None)
    return found


def _attributes(of: object, *names: str) -> Iterator[Any]:  # type: ignore[explicit-any]  # three kinds of object with the same parts
    return (value for name in names if (value := getattr(of, name, None)) is not None)
