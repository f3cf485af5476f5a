"""Scripts: spliced, called by their hash, sent whole when Redis has lost them, typed when they fail."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest
import redis
import trio

from gopher.errors import ScriptReplyError, StoreError, StoreFullError, StoreUnavailableError
from gopher.store import scripts
from gopher.store.link import Link
from gopher.store.scripts import LUA_DIRECTORY, Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer

NAMES: Final = sorted(path.stem for path in LUA_DIRECTORY.glob("*.lua"))
ECHO: Final = Script(
    "echo", "#!lua\n-- Says what it was given.\n-- KEYS[1] a key\n-- ARGV[1] a word\nreturn {KEYS[1], ARGV[1], 7, {}}\n"
)


@pytest.fixture
async def link(redis_url: str, nursery: trio.Nursery) -> Link:
    link = Link(redis_url)
    await nursery.start(link.run)
    return link


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A connection as the keeper's thread holds it."""
    with redis.Redis.from_url(redis_url, retry=None) as client:
        yield client


def write_lua(directory: Path, **files: str) -> None:
    (directory / "lib").mkdir()
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/')}.lua"
        path.write_text(text)


def test_script_splices_each_part_once_below_the_shebang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that includes another and is included twice stands once, in the place of its first mention."""
    write_lua(
        tmp_path,
        move="#!lua flags=allow-oom\n-- include: lib/b.lua\n-- include: lib/a.lua\nreturn b()\n",
        lib__a="local function a() return 1 end\n",
        lib__b="-- include: lib/a.lua\nlocal function b() return a() end\n",
    )
    monkeypatch.setattr(scripts, "LUA_DIRECTORY", tmp_path)

    script = Script.load("move")

    assert script.text.splitlines() == [
        "#!lua flags=allow-oom",
        "local function a() return 1 end",
        "local function b() return a() end",
        "return b()",
    ]
    assert script.sha == hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("-- No shebang.\nreturn 1\n", "does not begin with #!lua"),
        ("#!lua name=x\nreturn 1\n", "does not begin with #!lua"),
        ("#!lua\n-- KEYS[2] second\nreturn 1\n", r"KEYS\[2\] is out of place"),
        ("#!lua\n-- ARGV[1..] rest\n-- ARGV[2] one more\nreturn 1\n", r"ARGV\[2\] is out of place"),
    ],
)
def test_script_refuses_a_header_that_breaks_the_rules(text: str, fault: str) -> None:
    """A script without shebang, or with parameters out of order, does not load."""
    with pytest.raises(ValueError, match=fault):
        Script("odd", text)


@pytest.mark.parametrize(("keys", "arguments"), [([], ["a"]), (["k", "k"], ["a"]), (["k"], []), (["k"], ["a", "b"])])
async def test_script_refuses_a_wrong_number_of_words(link: Link, keys: list[str], arguments: list[str]) -> None:
    """A call that does not fit the header is refused before anything is sent."""
    with pytest.raises(ValueError, match=r"echo\.lua takes 1 keys and 1 arguments"):
        await ECHO(link, keys, arguments)


@pytest.mark.parametrize("name", NAMES)
async def test_every_script_is_taken_by_redis(link: Link, name: str) -> None:
    """Each script of the tree compiles, under the very hash that it is called by, and takes a key."""
    script = Script.load(name)

    sha = await link.call("SCRIPT", "LOAD", script.text)

    assert sha.decode() == script.sha
    assert script.keys >= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_script_names_its_parameters_once(name: str) -> None:
    """Below its header and its first lines a script speaks of names, not of KEYS[n]; it never reads past its header."""
    script = Script.load(name)
    own = (LUA_DIRECTORY / f"{name}.lua").read_text()

    body = "\n".join(line for line in own.splitlines() if not line.startswith("--"))

    assert f"KEYS[{script.keys + 1}]" not in body
    assert script.is_variadic or f"ARGV[{script.arguments + 1}]" not in body


def test_only_now_reads_the_clock() -> None:
    """The time comes through lib/now.lua, so that the tests' clock shifts every script."""
    readers = [path.name for path in LUA_DIRECTORY.rglob("*.lua") if "call('time')" in path.read_text().lower()]

    assert readers == ["now.lua"]


async def test_script_is_sent_whole_once_when_redis_has_lost_it(link: Link, client: redis.Redis) -> None:
    """After SCRIPT FLUSH a call succeeds, and the next one finds the script by its hash."""
    client.script_flush()

    replies = [await ECHO(link, ["k"], ["word"]) for _ in range(2)]

    assert replies == [[b"k", b"word", 7, []]] * 2
    assert client.script_exists(ECHO.sha) == [True]


async def test_script_survives_flushes_under_load(link: Link, client: redis.Redis) -> None:
    """However often the scripts are flushed, no call fails."""
    wrong: list[object] = []

    async def ask(number: int) -> None:
        for turn in range(20):
            reply = await ECHO(link, ["k"], [f"{number}:{turn}"])
            if reply[1] != f"{number}:{turn}".encode():
                wrong.append(reply)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
            for _ in range(20):
                client.script_flush()
                await trio.lowlevel.checkpoint()

    assert wrong == []


def test_script_runs_through_the_synchronous_client(client: redis.Redis) -> None:
    """A thread without Trio gets the same replies, also when Redis has lost the script."""
    client.script_flush()

    replies = [ECHO.call_sync(client, ["k"], ["word"]) for _ in range(2)]

    assert replies == [[b"k", b"word", 7, []]] * 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("OOM too much", StoreFullError),
        ("LOADING wait", StoreUnavailableError),
        ("READONLY no", StoreUnavailableError),
        ("MISCONF disk", StoreUnavailableError),
        ("WRONGTYPE what", ScriptReplyError),
        ("ERR whatever", ScriptReplyError),
    ],
)
async def test_script_raises_the_same_error_on_both_paths(
    link: Link, client: redis.Redis, code: str, error: type[StoreError]
) -> None:
    """What a script answers as an error is the same error of ours through the link and through redis-py."""
    script = Script("fail", f"#!lua\nreturn redis.error_reply('{code}')\n")

    with pytest.raises(error) as through_link:
        await script(link, [], [])
    with pytest.raises(error) as through_client:
        script.call_sync(client, [], [])

    assert through_link.value.message == through_client.value.message


def test_script_has_an_unknown_outcome_when_the_client_loses_redis(redis_server: RedisServer) -> None:
    """A synchronous call that gets no answer is unavailable with `outcome_unknown`, in words without the address."""
    with redis.Redis.from_url(redis_server.url, retry=None) as client:
        client.ping()
        redis_server.kill()
        with pytest.raises(StoreUnavailableError) as caught:
            ECHO.call_sync(client, ["k"], ["word"])

    assert caught.value.outcome_unknown
    assert str(redis_server.socket_path) not in caught.value.message
