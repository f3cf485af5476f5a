"""Formats the traceback of a failed attempt: the handler's frames first, bounded, and without the values of variables."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

import gopher
from gopher.job import MAX_TRACEBACK_BYTES
from gopher.runtime.failures import cut, message_of
from gopher.runtime.own_code import is_own

_LEFT_OUT_BYTES: Final = 64
"""Room for the line that says how much is missing."""
_GOPHER: Final = os.path.join(Path(gopher.__file__).parent, "")


class RemoteTraceback(Exception):  # noqa: N818 - the name that concurrent.futures has given to the same thing
    """Carries the traceback of another process as the cause of the error that stands for it there.

    Args:
        text: As `traceback_of` has formatted it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def traceback_of(error: BaseException) -> str:
    """Return the traceback of what a handler raised, at most 8 KiB; of what a handler's own process has sent, the one made there.

    The frames that lead from Gopher to the handler are left out. Of a longer text the middle is left out: the beginning holds the
    handler, the end where the error was raised and what it says.
    """
    if isinstance(error.__cause__, RemoteTraceback):
        return error.__cause__.text
    try:
        entries = list(_of_application(error).format())
    except BaseException:  # noqa: BLE001, ASYNC103 - the error's text is made by its author's code; and Python shows no group that is nested deep
        stack = traceback.extract_tb(error.__traceback__)
        shown = traceback.StackSummary.from_list(stack[_first(stack) :]).format()
        entries = [*shown, f"{type(error).__name__}: {message_of(error)}"]
    return _bounded("".join(cut(entry).rstrip("\n") + "\n" for entry in entries).rstrip("\n"))


def _of_application(error: BaseException) -> traceback.TracebackException:
    """Return the traceback with what it was raised from, each from the first frame of the application on."""
    whole = traceback.TracebackException.from_exception(error, lookup_lines=False, compact=True)
    waiting, known = [whole], {id(whole)}
    while waiting:
        each = waiting.pop()
        each.stack = traceback.StackSummary.from_list(each.stack[_first(each.stack) :])
        for other in (each.__cause__, each.__context__, *(each.exceptions or ())):
            if other is not None and id(other) not in known:
                known.add(id(other))
                waiting.append(other)
    return whole


def _first(stack: traceback.StackSummary) -> int:
    """Return which frame is the first of the application; of one that was installed, the first that is not Gopher's."""
    places = range(len(stack))
    own = next((place for place in places if is_own(stack[place].filename)), None)
    return next((place for place in places if not stack[place].filename.startswith(_GOPHER)), 0) if own is None else own


def _bounded(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MAX_TRACEBACK_BYTES:
        return text
    half = (MAX_TRACEBACK_BYTES - _LEFT_OUT_BYTES) // 2
    head, tail = encoded[:half].rpartition(b"\n")[0], encoded[-half:].partition(b"\n")[2]
    left_out = len(encoded) - len(head) - len(tail)
    return f"{head.decode()}\n  ... {left_out} bytes left out ...\n{tail.decode()}"
