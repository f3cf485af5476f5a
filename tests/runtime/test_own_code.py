from __future__ import annotations

import json

import pytest
import trio

from gopher.runtime import runner
from gopher.runtime.own_code import innermost_own, is_own

OWN = __file__
PYTHON = json.__file__
INSTALLED = trio.__file__
GOPHER = runner.__file__


@pytest.mark.parametrize(
    ("file", "claim"), [(OWN, True), (PYTHON, False), (INSTALLED, False), (GOPHER, False), ("<string>", False)]
)
def test_own_code_is_what_nobody_has_installed(file: str, claim: bool) -> None:
    """Python's own library, packages, Gopher and code with no file are not the application's."""
    assert is_own(file) is claim


@pytest.mark.parametrize(
    ("files", "home", "place"),
    [
        ([GOPHER, OWN, PYTHON], OWN, 1),
        ([GOPHER, INSTALLED, PYTHON], INSTALLED, 1),
        ([GOPHER, INSTALLED, OWN, PYTHON], INSTALLED, 2),
        ([GOPHER, PYTHON], OWN, None),
        ([], None, None),
    ],
)
def test_innermost_own_call_is_found(files: list[str], home: str | None, place: int | None) -> None:
    """The application's own; where it has none, the handler's file, which may have been installed."""
    assert innermost_own(files, home) == place
