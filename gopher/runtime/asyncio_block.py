"""A nursery of jobs as a handler on asyncio has it: each call crosses into Trio, and a child's end that decides the block cancels it.

Apart, as `asyncio_loop` is, because to import trio-asyncio changes asyncio for the whole process.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack, cast

from trio_asyncio import trio_as_aio

from gopher.interruption import Interruption
from gopher.kin.kin import Sibling
from gopher.nursery import ChildView, OnCancel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gopher.job import JsonValue
    from gopher.runtime.nurseries import AttemptKin, Nurseries
    from gopher.runtime.scopes import RunningAttempt
    from gopher.submission import JobOptions, Payload


class AsyncioChild(ChildView[Sibling]):
    """A child; see `gopher.nursery.ChildJob`."""

    async def result(self) -> JsonValue:
        """See `ChildJob.result`."""
        return cast("JsonValue", await trio_as_aio(self._child.result)())


class AsyncioNursery:
    """A nursery, inside its block; see `gopher.nursery.JobNursery`."""

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
    ) -> AsyncioChild:
        """See `JobNursery.start_soon`."""
        return AsyncioChild(self._nurseries.add(self._kin, type, payload, on_cancel, options))

    async def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> AsyncioChild:
        """See `JobNursery.start`."""
        start = trio_as_aio(self._nurseries.start)
        return AsyncioChild(await start(self._kin, type, payload, on_cancel, options))

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""
        self._kin.cancel()


@asynccontextmanager
async def asyncio_block(
    nurseries: Nurseries, attempt: RunningAttempt, policy: str, on_crash: str
) -> AsyncIterator[AsyncioNursery]:
    """Open a nursery of jobs while a block on asyncio lasts.

    Raises:
        ExceptionGroup: The block's own error, and those of the children.
    """
    kin = await trio_as_aio(nurseries.open)(attempt, policy, on_crash)
    fail = trio_as_aio(nurseries.fail)
    interruption = Interruption()
    kin.on_decided = interruption.interrupt
    try:
        yield AsyncioNursery(nurseries, kin)
    except asyncio.CancelledError as error:  # noqa: ASYNC103 - one of our own ends here, as that of an `asyncio.TaskGroup` does
        if not interruption.is_over():
            await fail(kin, error)
    except BaseException as error:  # noqa: BLE001 - whatever ends the block ends its children
        await fail(kin, error)
    await interruption.end()
    await trio_as_aio(nurseries.join)(kin)
