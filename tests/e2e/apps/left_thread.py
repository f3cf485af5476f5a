"""An application whose import leaves a thread running that keeps the process alive."""

from __future__ import annotations

import threading

from tests.e2e.apps.work import registry

__all__ = ["registry"]

threading.Thread(target=threading.Event().wait, name="left-behind").start()
