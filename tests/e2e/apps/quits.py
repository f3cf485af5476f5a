"""An application that ends the process as it is imported."""

from __future__ import annotations

import sys

sys.exit("no licence")
