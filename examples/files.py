"""Whole files or none: how the handlers write what they make.

A job may run more than once (at-least-once), and an attempt may be killed half-way. A handler that writes beside its target and
renames at the end leaves either the old file or the whole new one, and running it again does no harm. What a killed attempt has
left beside the target goes with the next attempt: a writer holds a lock on its file, and the system frees it when the writer dies.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX: Final = ".partial"


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of `target` when the block ends well, and vanishes when it does not.

    The folder of `target` is made if need be. The new file gets a name of its own, so that two attempts of one job (a late worker
    and its successor) never write into the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    partial, file = _open_locked(target)
    with file:
        try:
            yield file
            file.flush()
            partial.replace(target)  # before the lock goes with the file, or another attempt could take it for abandoned
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _open_locked(target: Path) -> tuple[Path, BinaryIO]:
    """Return a new file beside the target, locked for as long as it is open, and its path."""
    while True:
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{SUFFIX}")
        file = partial.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink > 0:
            return partial, file
        file.close()  # another attempt found it before it was locked, and has removed it


def _remove_abandoned(target: Path) -> None:
    """Remove the files that attempts which are dead have left beside the target."""
    for path in target.parent.iterdir():
        if path.name.startswith(f".{target.name}.") and path.name.endswith(SUFFIX):
            # It may be gone by now, and whoever still writes it holds its lock.
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
