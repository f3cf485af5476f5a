"""Tells the application's own code from what it is built on, by where a file lies."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Final

import gopher

_FOREIGN: Final = tuple(
    {os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.path.join(Path(gopher.__file__).parent, "")}
)


def is_own(file: str) -> bool:
    """Tell whether a source file belongs to the application: not to Python, to what pip has installed, or to Gopher."""
    # What has no file, as `<frozen importlib>`, is nobody's to mend.
    return not file.startswith(("<", *_FOREIGN))


def innermost_own(files: list[str], home: str | None) -> int | None:
    """Return which of the calls under way is the innermost of the application's own.

    Args:
        files: The source file of each call, outermost first.
        home: The file of the handler, which counts as own wherever it lies: an application may be installed too.

    Returns:
        An index; None when none is.
    """
    for place in reversed(range(len(files))):
        if is_own(files[place]):
            return place
    return next((place for place in reversed(range(len(files))) if files[place] == home), None)
