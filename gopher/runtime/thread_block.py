"""A nursery of jobs as a handler in a thread has it: each call is carried out in Trio while the thread waits.

The end of a child cannot cancel the block of a thread; it shows at the end of the block.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Unpack

import trio

from gopher.kin.kin import Sibling
from gopher.nursery import ChildView, OnCancel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.job import JsonValue
    from gopher.runtime.nurseries import AttemptKin, Nurseries
    from gopher.runtime.scopes import RunningAttempt
    from gopher.submission import JobOptions, Payload


class ThreadChild(ChildView[Sibling]):
    """A child; see `gopher.nursery.SyncChildJob`."""

    def result(self) -> JsonValue:
        """See `ChildJob.result`."""
        return trio.from_thread.run(self._child.result)


class ThreadNursery:
    """A nursery, inside its block; see `gopher.nursery.SyncJobNursery`."""

    def __init__(self, nurseries: Nurseries, kin: AttemptKin) -> None:
        self._nurseries = nurseries
        self._kin = kin

    def start_soon(
        self,
        type: str,  # noqa: A002 - the field's name wherever a job is spoken of
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> ThreadChild:
        """See `JobNursery.start_soon`."""
        return ThreadChild(trio.from_thread.run_sync(self._nurseries.add, self._kin, type, payload, on_cancel, options))

    def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> ThreadChild:
        """See `JobNursery.start`."""
        return ThreadChild(trio.from_thread.run(self._nurseries.start, self._kin, type, payload, on_cancel, options))

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""
        trio.from_thread.run_sync(self._kin.cancel)


@contextmanager
def thread_block(nurseries: Nurseries, attempt: RunningAttempt, policy: str, on_crash: str) -> Iterator[ThreadNursery]:
    """Open a nursery of jobs while a block in a thread lasts.

    Raises:
        ExceptionGroup: The block's own error, and those of the children.
    """
    kin = trio.from_thread.run(nurseries.open, attempt, policy, on_crash)
    try:
        yield ThreadNursery(nurseries, kin)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - whatever ends the block ends its children; `fail` raises it again
        trio.from_thread.run(nurseries.fail, kin, error)
    trio.from_thread.run(nurseries.join, kin)
