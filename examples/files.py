"""Whole files or none: how the handlers write what they make.

A job may run more than once (at-least-once), and an attempt may be killed half-way. A handler that writes beside its target and
renames at the end leaves either the old file or the whole new one, and running it again does no harm.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of `target` when the block ends well, and vanishes when it does not.

    The folder of `target` is made if need be. The new file gets a name of its own, so that two attempts of one job (a late worker
    and its successor) never write into the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
