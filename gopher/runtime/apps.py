"""Finds the application of a worker: `module:registry`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from gopher.errors import StartError
from gopher.handlers import Registry
from gopher.runtime.own_code import innermost_own, is_own

EXIT_BAD_APP = 2
"""Restarting will not help."""


def _place_of(error: BaseException) -> str:
    """Return `FILE:LINE: ` of the innermost line of the application that an import has failed at; nothing where none was met."""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return f"{error.filename}:{error.lineno}: "
    calls = traceback.extract_tb(error.__traceback__)
    place = innermost_own([call.filename for call in calls], None)
    return "" if place is None else f"{calls[place].filename}:{calls[place].lineno}: "


def load_registry(app: str) -> Registry:
    """Import an application's module and return its registry. The working directory is put on the import path.

    Args:
        app: `module:registry`, as in `examples.media:registry`.

    Raises:
        StartError: It cannot be imported, or is no registry; the message is one line.
    """
    module_name, colon, name = app.partition(":")
    if not module_name or not colon or not name:
        raise StartError(f"--app {app!r} must read MODULE:REGISTRY, as in examples.media:registry", exit_code=EXIT_BAD_APP)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the application's import raises ends in one clear line
        raise StartError(
            f"--app {app!r} cannot be imported: {_place_of(error)}{type(error).__name__}: {error}", exit_code=EXIT_BAD_APP
        ) from error
    registry = getattr(module, name, None)
    if not isinstance(registry, Registry):
        raise StartError(f"--app {app!r}: {module_name} has no gopher.Registry called {name!r}", exit_code=EXIT_BAD_APP)
    if not registry.types:
        raise StartError(f"--app {app!r}: the registry has no handlers", exit_code=EXIT_BAD_APP)
    return registry
