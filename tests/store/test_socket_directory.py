"""The directories of sockets: made, locked, removed by their owners and, where these were killed, by a later start."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gopher.store import socket_directory
from gopher.store.embedded import open_embedded_redis
from gopher.store.socket_directory import OWNER_LOCK, open_socket_directory, remove_ownerless
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER: Final = textwrap.dedent("""
    import trio
    from gopher.store.embedded import open_embedded_redis

    async def main():
        async with open_embedded_redis(None) as server:
            print(server.socket_path.parent, flush=True)
            await trio.sleep_forever()

    trio.run(main)
""")


@pytest.fixture
def owners() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes, each with an embedded redis-server."""
    found = [subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    yield found
    for each in found:
        with each:
            each.kill()


def told(owner: subprocess.Popen[str]) -> Path:
    """Return the directory of an owner's redis-server."""
    assert owner.stdout is not None
    return Path(owner.stdout.readline().strip())


def is_unlocked(directory: Path) -> bool:
    """Tell whether a directory's lock is held by no process: a killed one holds it until the last of its threads has ended."""
    with (directory / OWNER_LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def test_start_removes_what_a_killed_owner_has_left_and_nothing_else(owners: list[subprocess.Popen[str]]) -> None:
    """After kill -9 the directory stays until the next start of anybody; that of an owner who lives stays."""
    left_behind, of_the_living = map(told, owners)
    owners[0].kill()
    await until(lambda: is_unlocked(left_behind))

    async with open_embedded_redis(None):
        pass

    assert not left_behind.exists()
    assert (of_the_living / OWNER_LOCK).exists()


def test_remove_ownerless_leaves_what_has_no_lock_or_a_held_one(tmp_path: Path) -> None:
    """Only a lock that nobody holds says that the owner has gone."""
    (tmp_path / "gopher-other").mkdir()

    with open_socket_directory(str(tmp_path)) as (held, _):
        remove_ownerless(held)
        remove_ownerless(tmp_path / "gopher-other")
        is_held = held.exists()

    assert is_held
    assert [each.name for each in tmp_path.iterdir()] == ["gopher-other"]


def test_remove_ownerless_follows_no_link(tmp_path: Path) -> None:
    """A link with our prefix, which anybody can put beside our directories, is not followed."""
    target = tmp_path / "kept"
    target.mkdir()
    (target / OWNER_LOCK).touch()
    (tmp_path / "gopher-link").symlink_to(target)

    with open_socket_directory(str(tmp_path)):
        pass

    assert (target / OWNER_LOCK).exists()


def test_open_socket_directory_looks_at_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are left behind, a start removes so many at most."""
    monkeypatch.setattr(socket_directory, "MAX_LOOKED_AT", 2)
    for number in range(5):
        directory = Path(tempfile.mkdtemp(prefix=f"gopher-{number}-", dir=tmp_path))
        (directory / OWNER_LOCK).touch()

    with open_socket_directory(str(tmp_path)):
        pass

    assert len(list(tmp_path.iterdir())) == 3
