"""The scripts that move jobs: read from `lua/`, called by their SHA1, sent whole when Redis does not know them.

A script is a file `lua/NAME.lua`. Its first line is the shebang that carries its flags; the comment below is its header, where
each key and argument has a line of its own, `-- KEYS[n] meaning` or `-- ARGV[n] meaning`; `-- ARGV[n..] meaning` stands for any
number of arguments from the n-th on. A line `-- include: lib/PART.lua` is replaced by the text of `lua/lib/PART.lua`, which may
include others; what is included twice is spliced once. The text is whole before it is hashed: Redis sees one script, and two
versions of Gopher that differ in a part call different scripts.

Every script answers with a list of bytes, int, None and lists of these; where it speaks of one thing the first entry is a word.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError, ResponseError

from gopher.errors import StoreError, StoreUnavailableError
from gopher.store.resp import NoScriptError, error_from_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from gopher.store.link import Link
    from gopher.store.resp import Argument, Reply

LUA_DIRECTORY: Final = Path(__file__).parent / "lua"

_SHEBANG: Final = re.compile(r"#!lua( flags=[a-z,-]+)?")
_INCLUDE: Final = re.compile(r"-- include: (lib/[a-z_]+\.lua)")
_PARAMETER: Final = re.compile(r"-- (KEYS|ARGV)\[(\d+)(\.\.)?\] .+")


class Script:
    """A script, as it is called.

    Attributes:
        name: Of its file, without the ending.
        text: As Redis gets it.
        sha: SHA1 of the text, in hexadecimal.
        keys: How many keys it takes.
        arguments: How many arguments it takes; at least that many when it takes any number.
        is_variadic: Whether it takes any number of arguments more.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.keys, self.arguments, self.is_variadic = _read_header(name, text)

    @classmethod
    def load(cls, name: str) -> Script:
        """Read a script and splice what it includes.

        Raises:
            ValueError: Its header breaks the rules above.
        """
        return cls(name, "\n".join(_spliced(f"{name}.lua", set())) + "\n")

    async def __call__(self, link: Link, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        """Run the script in Redis.

        Raises:
            ValueError: The number of keys or arguments is not that of the header.
            StoreError: As `Link.call`.
        """
        command = self._words(keys, args)
        began_at = time.perf_counter()
        try:
            return await link.call("EVALSHA", self.sha, *command)
        except NoScriptError:
            pass
        finally:
            link.script_durations.observe((self.name,), time.perf_counter() - began_at)
        # EVAL, not SCRIPT LOAD and a second EVALSHA: nobody can flush the script away between the two.
        return await link.call("EVAL", self.text, *command)

    def call_sync(self, client: Redis, keys: Sequence[Argument], args: Sequence[Argument]) -> Reply:
        """Run the script through a redis-py client, for threads that have no Trio.

        The client must not retry by itself (`retry=None`): whether a command that got no answer may be repeated is not for it to say.

        Raises:
            ValueError: The number of keys or arguments is not that of the header.
            StoreError: As `Link.call`.
        """
        command = self._words(keys, args)
        try:
            return execute_sync(client, "EVALSHA", self.sha, *command)
        except NoScriptError:
            pass
        return execute_sync(client, "EVAL", self.text, *command)

    def _words(self, keys: Sequence[Argument], args: Sequence[Argument]) -> tuple[Argument, ...]:
        # A missing argument would be a nil that may stop the script after its first write.
        if len(keys) != self.keys or len(args) < self.arguments or (len(args) > self.arguments and not self.is_variadic):
            raise ValueError(
                f"{self.name}.lua takes {self.keys} keys and {self.arguments}{'..' if self.is_variadic else ''} arguments, "
                f"got {len(keys)} and {len(args)}"
            )
        return (len(keys), *keys, *args)


def _spliced(path: str, spliced: set[str]) -> list[str]:
    lines = []
    for line in (LUA_DIRECTORY / path).read_text(encoding="utf-8").splitlines():
        include = _INCLUDE.fullmatch(line)
        if include is None:
            lines.append(line)
        elif include[1] not in spliced:
            spliced.add(include[1])
            lines += _spliced(include[1], spliced)
    return lines


def _read_header(name: str, text: str) -> tuple[int, int, bool]:
    shebang, *lines = text.splitlines()
    if _SHEBANG.fullmatch(shebang) is None:
        raise ValueError(f"{name}.lua does not begin with #!lua")
    counts = {"KEYS": 0, "ARGV": 0}
    is_variadic = False
    for line in lines:
        if not line.startswith("--"):
            break
        parameter = _PARAMETER.fullmatch(line)
        if parameter is None:
            continue
        kind, number, is_open = parameter[1], int(parameter[2]), parameter[3] is not None
        if is_variadic or number != counts[kind] + 1 or (is_open and kind == "KEYS"):
            raise ValueError(f"{name}.lua: {kind}[{number}] is out of place")
        is_variadic = is_open
        if not is_open:
            counts[kind] = number
    return counts["KEYS"], counts["ARGV"], is_variadic


def execute_sync(client: Redis, *command: Argument) -> Reply:
    """Send one command through a redis-py client, which must not retry by itself.

    Raises:
        StoreError: As `Link.call`.
    """
    try:
        return client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    except RedisError as error:
        raise _translated(error) from error


def _translated(error: RedisError) -> StoreError:
    if error.status_code is not None:
        return error_from_reply(f"{error.status_code} {error}")
    if isinstance(error, ResponseError):
        return error_from_reply(str(error))
    # redis-py does not tell whether the command had left.
    return StoreUnavailableError("the connection to redis broke; the command may have been carried out", outcome_unknown=True)
