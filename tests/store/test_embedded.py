"""The embedded redis-server: found, started, watched, locked, and ended with its parent."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
import redis
import trio

from gopher.errors import StartError, StoreUnavailableError
from gopher.store import embedded
from gopher.store.embedded import (
    LOCK_NAME,
    SERVER_VARIABLE,
    SOCKET_PATH_BYTES,
    find_redis_server,
    open_embedded_redis,
    redis_command,
    spawn_redis,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

PARENT = textwrap.dedent("""
    import pathlib, sys, trio
    from gopher.store.embedded import open_embedded_redis

    async def main():
        async with open_embedded_redis(pathlib.Path(sys.argv[1])) as server:
            print(server.socket_path, flush=True)
            await trio.sleep_forever()

    trio.run(main)
""")


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def make_program(path: Path, answer: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


async def test_open_embedded_redis_serves_on_its_socket_only_with_our_settings() -> None:
    """A server without a data directory listens on no port, evicts nothing, keeps hashes compact and writes no file."""
    async with open_embedded_redis(None) as server, trio.open_nursery():
        with connect(server.url) as connection:
            found = connection.config_get("*")
            pid = connection.info("server")["process_id"]

    assert pid == server.pid
    assert {name: found[name] for name in ("port", "save", "appendonly", "maxmemory-policy", "hash-max-listpack-value")} == {
        "port": "0",
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": "1024",
    }


async def test_open_embedded_redis_keeps_the_data_directory(tmp_path: Path) -> None:
    """What was written is there again after a stop in order, also where the path holds spaces and quotes."""
    data_dir = tmp_path / "data 'of' \"Gopher\" ü"
    async with open_embedded_redis(data_dir) as server:
        with connect(server.url) as connection:
            connection.set("kept", "yes")

    async with open_embedded_redis(data_dir) as server:
        with connect(server.url) as connection:
            found = connection.get("kept")

    assert found == "yes"


async def test_open_embedded_redis_leaves_nothing_behind() -> None:
    """After the block the process has ended and its temporary directory is gone."""
    async with open_embedded_redis(None) as server:
        directory = server.socket_path.parent
        assert directory.exists()

    assert has_ended(server.pid)
    assert not directory.exists()


async def test_open_embedded_redis_ends_the_server_when_cancelled() -> None:
    """A block that is cancelled leaves no process behind."""
    with trio.CancelScope() as scope:
        async with open_embedded_redis(None) as server:
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert has_ended(server.pid)


async def test_open_embedded_redis_kills_a_server_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer SIGTERM in time gets SIGKILL."""
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)

    async with open_embedded_redis(None) as server:
        os.kill(server.pid, signal.SIGSTOP)

    assert has_ended(server.pid)


async def test_open_embedded_redis_reports_a_crash() -> None:
    """A server that ends by itself cancels the block and is named with the way it ended."""
    with pytest.raises(StoreUnavailableError, match="ended by SIGKILL") as caught:
        async with open_embedded_redis(None) as server:
            os.kill(server.pid, signal.SIGKILL)
            with trio.fail_after(10):
                await trio.sleep_forever()

    assert str(server.pid) in caught.value.message


async def test_open_embedded_redis_lets_errors_of_the_block_out_as_they_are() -> None:
    """An error raised in the block is not wrapped in a group, and keeps its cause."""
    cause = OSError("cause")

    with pytest.raises(LookupError) as caught:
        async with open_embedded_redis(None):
            raise LookupError from cause

    assert caught.value.__cause__ is cause


async def test_open_embedded_redis_spawns_from_the_trio_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is bound to the thread that runs Trio: bound to a worker thread it would end ten idle seconds later."""
    threads = []
    spawn = embedded.spawn_redis

    def spy(command: list[str], directory: Path, log: int, *, environ: Mapping[str, str], locks: list[int]) -> object:
        threads.append(threading.current_thread())
        return spawn(command, directory, log, environ=environ, locks=locks)

    monkeypatch.setattr(embedded, "spawn_redis", spy)
    async with open_embedded_redis(None):
        pass

    assert threads == [threading.current_thread()]


async def test_open_embedded_redis_starts_in_a_locale_that_is_not_installed() -> None:
    """A locale variable that names nothing does not keep the server from starting."""
    async with open_embedded_redis(None, environ={**os.environ, "LC_ALL": "xx_XX.UTF-8"}) as server:
        with connect(server.url) as connection:
            assert connection.ping()


async def test_open_embedded_redis_finds_a_short_socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory with a long name does not make the socket path longer than the system allows."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))

    async with open_embedded_redis(None) as server:
        with connect(server.url) as connection:
            assert connection.ping()

    assert len(os.fsencode(server.socket_path)) <= SOCKET_PATH_BYTES
    assert list(long.iterdir()) == []


async def test_open_embedded_redis_refuses_a_data_directory_in_use(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A second start on a data directory is refused with one line that names the directory and the holder."""
    with (tmp_path / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n/tmp/gopher/redis.sock\n")
        lock.flush()

        with pytest.raises(StartError) as caught:
            async with open_embedded_redis(tmp_path):
                pass

    assert caught.value.message == f"data directory {tmp_path} is in use by process 4711; stop it, or choose another directory"


async def test_open_embedded_redis_waits_for_an_orphan_to_end(tmp_path: Path) -> None:
    """A lock that is given up within moments, as by a server whose parent was killed, is waited for."""
    lock = (tmp_path / LOCK_NAME).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def give_up() -> None:
            await trio.testing.wait_all_tasks_blocked()
            lock.close()

        async with open_embedded_redis(tmp_path):
            holder = (tmp_path / LOCK_NAME).read_text().splitlines()[0]

    assert holder == str(os.getpid())


async def test_open_embedded_redis_refuses_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    """A data directory that cannot be one is refused with one line."""
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(StartError, match=f"^cannot use the data directory {path}: File exists$"):
        async with open_embedded_redis(path):
            pass


async def test_open_embedded_redis_tells_why_the_server_did_not_start(tmp_path: Path) -> None:
    """Data that redis-server cannot load is reported in its own words."""
    broken = tmp_path / "appendonlydir"
    broken.mkdir()
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")

    with pytest.raises(StartError, match=r"^redis-server did not start: .*manifest") as caught:
        async with open_embedded_redis(tmp_path):
            pass

    assert "\n" not in caught.value.message


def test_embedded_redis_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the parent the server ends within 2 s; the next start finds the data whole and clears the socket away."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        socket_path = parent.stdout.readline().strip()
        with connect(f"unix://{socket_path}") as connection, socket.socket(socket.AF_UNIX) as witness:
            connection.set("kept", "yes")
            witness.settimeout(2.0)
            witness.connect(socket_path)
            witness.sendall(b"PING\r\n")
            assert witness.recv(7) == b"+PONG\r\n"
            parent.kill()
            end = witness.recv(1)

    async def read_again() -> object:
        async with open_embedded_redis(tmp_path) as server:
            with connect(server.url) as connection:
                return connection.get("kept")

    left_behind = os.path.exists(socket_path)

    assert end == b""
    assert left_behind
    assert trio.run(read_again) == "yes"
    assert not os.path.exists(os.path.dirname(socket_path))


async def test_open_embedded_redis_keeps_the_server_out_of_the_terminals_group() -> None:
    """The server has a session of its own, so that Ctrl-C does not take it away from a Gopher that still drains."""
    async with open_embedded_redis(None) as server:
        session = os.getsid(server.pid)

    assert session == server.pid


def test_spawn_redis_holds_the_lock_as_long_as_the_server_runs(redis_program: str, tmp_path: Path) -> None:
    """The lock outlives the parent's hold on it, and ends with the server."""
    lock_path = tmp_path / LOCK_NAME
    with lock_path.open("w") as ours, lock_path.open() as other:
        fcntl.flock(ours, fcntl.LOCK_EX)
        command = redis_command(redis_program, tmp_path / "s", persistent=False)
        with spawn_redis(command, tmp_path, subprocess.DEVNULL, locks=[ours.fileno()]) as process:
            ours.close()
            try:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                process.kill()

        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_find_redis_server_takes_the_named_one(tmp_path: Path) -> None:
    """GOPHER_REDIS_SERVER goes before PATH."""
    named = make_program(tmp_path / "mine" / "server", "Redis server v=7.0.15 sha=0:0")
    make_program(tmp_path / "bin" / "redis-server", "Redis server v=8.0.0 sha=0:0")

    assert find_redis_server({SERVER_VARIABLE: named, "PATH": str(tmp_path / "bin")}) == named


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Redis server v=6.2.14 sha=0:0", "is version 6.2; the oldest that serves is 7.0"),
        ("hello", "does not tell its version"),
    ],
)
def test_find_redis_server_refuses_a_named_one_that_does_not_serve(tmp_path: Path, answer: str, fault: str) -> None:
    """A GOPHER_REDIS_SERVER that is too old or something else is refused, never replaced in silence."""
    named = make_program(tmp_path / "server", answer)

    with pytest.raises(StartError) as caught:
        find_redis_server({SERVER_VARIABLE: named, "PATH": ""})

    assert caught.value.message == f"GOPHER_REDIS_SERVER={named} is no redis-server that can be run; {named} {fault}"


def test_find_redis_server_refuses_a_named_one_that_is_not_there(tmp_path: Path) -> None:
    """A GOPHER_REDIS_SERVER that does not exist is refused by name."""
    with pytest.raises(StartError, match="is no redis-server that can be run"):
        find_redis_server({SERVER_VARIABLE: str(tmp_path / "none"), "PATH": ""})


@pytest.mark.parametrize(
    ("name", "answer"),
    [("redis-server", "Redis server v=7.0.0 sha=0:0 malloc=libc"), ("valkey-server", "Valkey server v=8.1.1 sha=0:0")],
)
def test_find_redis_server_takes_one_on_path(tmp_path: Path, name: str, answer: str) -> None:
    """A redis-server or valkey-server on PATH goes before the wheel's."""
    program = make_program(tmp_path / name, answer)

    assert find_redis_server({"PATH": str(tmp_path)}) == program


def test_find_redis_server_passes_over_an_old_one_for_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server on PATH that is too old is passed over."""
    make_program(tmp_path / "bin" / "redis-server", "Redis server v=6.0.16 sha=0:0")
    wheel = make_program(tmp_path / "wheel" / "redis-server", "Redis server v=8.2.3 sha=0:0")
    monkeypatch.setattr(embedded, "_server_of_wheel", lambda: [wheel])

    assert find_redis_server({"PATH": str(tmp_path / "bin")}) == wheel


def test_find_redis_server_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no server anywhere there is one line: the packages, the variable, and what was found and passed over."""
    old = make_program(tmp_path / "redis-server", "Redis server v=6.0.16 sha=0:0")
    monkeypatch.setattr(embedded, "_server_of_wheel", list)

    with pytest.raises(StartError) as caught:
        find_redis_server({"PATH": str(tmp_path)})

    assert caught.value.message == (
        "no redis-server found: pip install 'gopher-jobs[embedded]' (Linux x86-64, macOS arm64), or install the package "
        "redis-server (Debian) or redis (Homebrew), or name one in GOPHER_REDIS_SERVER; "
        f"{old} is version 6.0; the oldest that serves is 7.0"
    )
