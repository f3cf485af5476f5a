"""The temporary directories that sockets lie in: each is locked by its owner, and those whose owner was killed are removed.

The lock is on a file inside. It ends with the last process that holds it, however that ends, so that no process id has to be trusted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = "gopher-"
OWNER_LOCK: Final = "owner.lock"
MAX_LOOKED_AT: Final = 1_000
"""Chosen: of the directories that might be left behind, at one start; takes about 10 ms."""


@contextmanager
def open_socket_directory(parent: str | None = None, *, prefix: str = PREFIX) -> Iterator[tuple[Path, int]]:
    """Give a directory that only we can enter, and the descriptor of its lock; first remove those that killed owners have left.

    Args:
        parent: Where it is made; None: where temporary files go.
        prefix: Of its name; begins with PREFIX.
    """
    for found in _candidates(parent or tempfile.gettempdir()):
        remove_ownerless(found)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        lock = _lock(Path(name))
        try:
            yield Path(name), lock
        finally:
            os.close(lock)


def remove_ownerless(directory: Path) -> None:
    """Remove a directory whose owner, and whoever inherited the lock, has ended; leave every other one, also one without a lock."""
    try:
        lock = os.open(directory / OWNER_LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)


def _candidates(parent: str) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            ours = (each for each in entries if each.name.startswith(PREFIX) and each.is_dir(follow_symlinks=False))
            return [Path(each.path) for each in islice(ours, MAX_LOOKED_AT)]
    except OSError:
        return []


def _lock(directory: Path) -> int:
    """Lock the directory and return the descriptor; the lock has its name only once it is held, or it would pass for a dead owner's."""
    unnamed = directory / f"{OWNER_LOCK}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(directory / OWNER_LOCK)
    return lock
