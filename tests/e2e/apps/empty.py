"""An application with no handlers."""

from __future__ import annotations

import gopher

registry = gopher.Registry()
