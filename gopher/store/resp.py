"""The language spoken with Redis: words of a command, shapes of a reply, and the one translation of error replies.

The first word of an error reply says whose fault it is. Redis's own text is passed on only where it tells about the command; it
never holds an address or a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hiredis import pack_command

from gopher.errors import ScriptReplyError, StoreError, StoreFullError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

Argument: TypeAlias = bytes | str | int | float
"""A word of a command; text is sent as UTF-8, numbers in decimal."""

pack: Final[Callable[[tuple[Argument, ...]], bytes]] = pack_command  # type: ignore[assignment] # its stub takes one word only
"""Return the bytes of one command."""

Reply: TypeAlias = Any  # type: ignore[explicit-any] # each command has a shape of its own; a union would make every use a cast
"""What a command answers under RESP3: bytes, int, float, bool, None, and lists and dicts of these.

Errors inside a list are `StoreError`s; a command that is refused as a whole raises its error.
"""

UNAVAILABLE: Final = {
    "ASK": "is moving the keys to another node",
    "BUSY": "is busy with a script that runs too long",
    "CLUSTERDOWN": "cluster does not serve all slots",
    "LOADING": "is loading its data",
    "MASTERDOWN": "replica has lost its master",
    "MISCONF": "cannot write to its disk and refuses changes",
    "MOVED": "keeps the keys on another node",
    "NOREPLICAS": "has too few replicas to accept a change",
    "TRYAGAIN": "is moving the keys to another node",
}
"""Refusals that pass: first word of the reply -> what Redis is doing. None of them has changed anything."""

FORBIDDEN: Final = {
    "NOAUTH": "redis asks for a password and was given none",
    "NOPERM": "the redis user lacks a permission that gopher needs",
    "WRONGPASS": "redis refused the user name or the password",
}
"""Refusals that only an operator can mend."""


class NoScriptError(StoreError):
    """Redis does not have the script; `gopher.store.scripts` loads it and nobody else sees this."""


class ReadOnlyReplicaError(StoreUnavailableError):
    """The server has become a replica: the connection leads to the wrong one and must be made anew."""


def error_from_reply(text: str) -> StoreError:
    """Return our error for the text of an error reply."""
    word = text.partition(" ")[0]
    if word in UNAVAILABLE:
        return StoreUnavailableError(f"redis {UNAVAILABLE[word]}")
    if word in FORBIDDEN:
        return StoreError(FORBIDDEN[word])
    match word:
        case "OOM":
            return StoreFullError("redis has reached its maxmemory; nothing can be added until jobs have drained")
        case "NOSCRIPT":
            return NoScriptError("redis does not have the script")
        case "READONLY":
            return ReadOnlyReplicaError("redis has become a replica and refuses changes")
        case _:
            return ScriptReplyError(f"redis refused a command: {text}")
