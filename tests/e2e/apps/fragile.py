"""An application whose import ends the process once there is a file of the given name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.e2e.apps.work import registry

__all__ = ["registry"]

FAULT_VARIABLE: Final = "GOPHER_TEST_FAULT"

if Path(os.environ.get(FAULT_VARIABLE, "/nothing")).exists():
    os._exit(9)
