"""Nurseries of jobs of the client for programs that block: the calls are made in a thread.

The end of a child cannot cancel a block that runs in a thread; it shows at the end of the block.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Unpack, cast

from gopher.client.nursery import CLEANUP_SECONDS, Child
from gopher.client.nursery_stream import LEAVE_SECONDS, NurseryStream
from gopher.errors import GopherError
from gopher.nursery import DEFAULT_GRACE_SECONDS, ChildView, OnCancel

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    from gopher.job import JsonValue
    from gopher.submission import JobOptions, Payload


class SyncChild(ChildView[Child]):
    """A child; see `gopher.nursery.SyncChildJob`."""

    def result(self) -> JsonValue:
        """See `ChildJob.result`."""
        return self._child.outcome()


class SyncNursery:
    """A nursery, inside its block; see `gopher.nursery.SyncJobNursery`."""

    def __init__(self, stream: NurseryStream) -> None:
        self._stream = stream

    def start_soon(
        self,
        type: str,  # noqa: A002 - the field's name wherever a job is spoken of
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> SyncChild:
        """See `JobNursery.start_soon`."""
        return SyncChild(self._stream.add(type, payload, on_cancel, cast("Mapping[str, object]", options)))

    def start(
        self,
        type: str,  # noqa: A002 - likewise
        payload: Payload = None,
        *,
        on_cancel: str = OnCancel.CANCEL,
        **options: Unpack[JobOptions],
    ) -> SyncChild:
        """See `JobNursery.start`."""
        answered = threading.Event()
        child = self._stream.add(type, payload, on_cancel, cast("Mapping[str, object]", options), answered)
        answered.wait()
        if child.error is not None:
            raise child.error
        return SyncChild(child)

    def cancel(self) -> None:
        """See `JobNursery.cancel`."""
        self._stream.cancel()


class NurseryMethods(ABC):
    """What the client for programs that block can do with nurseries."""

    namespace: str

    @abstractmethod
    def _nursery_over(self, stream: NurseryStream) -> Generator[bytes]:
        """Make one call of a nursery and yield its replies."""

    @abstractmethod
    def _pause(self, seconds: float) -> None: ...

    def open_nursery(self, policy: str = "all", grace: float = DEFAULT_GRACE_SECONDS) -> AbstractContextManager[SyncNursery]:
        """Open a nursery of jobs while a block lasts: `with client.open_nursery() as nursery:`.

        The block ends when all children have. One that fails has the others cancelled, and the error is raised at the end of the
        block; leaving the block by an error cancels all. A server that goes away is found again, within the grace; no child is
        started twice.

        Args:
            policy: `all`, `any` or `collect`; see `gopher.nursery.NurseryPolicy`.
            grace: How long the children go on once this program has vanished, in seconds, 1 to 300.

        Raises:
            InvalidRequestError: There is no such policy, or the grace is out of range.
            ExceptionGroup: At the end of the block: its own error and those of the children.
        """
        ended = threading.Event()
        return self._block(NurseryStream(self.namespace, policy, grace, ended), ended)

    @contextmanager
    def _block(self, stream: NurseryStream, ended: threading.Event) -> Iterator[SyncNursery]:
        thread = threading.Thread(target=self._keep_nursery, args=(stream,), name="gopher-nursery", daemon=True)
        failure: BaseException | None = None
        stream.on_first = thread.start
        try:
            yield SyncNursery(stream)
            stream.close()
            ended.wait()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - whatever ends the block ends its children; it is raised again below
            stream.abandon()
            failure = _wait_ended(ended, error)
        finally:
            if thread.ident is not None:
                thread.join(LEAVE_SECONDS if ended.is_set() else 0)
                stream.stop()
        stream.raise_errors(failure)

    def _keep_nursery(self, stream: NurseryStream) -> None:
        """Make the calls of a nursery until no other is of use."""
        try:
            while (pause_seconds := self._call_nursery(stream)) is not None:
                self._pause(pause_seconds)
        except GopherError as error:
            stream.lose(error)
        finally:
            stream.note_last_call()

    def _call_nursery(self, stream: NurseryStream) -> float | None:
        """Make a call; return how long to wait before the next, None: there is none."""
        cut: GopherError | None = None
        try:
            with closing(self._nursery_over(stream)) as replies:
                for reply in replies:
                    stream.take(reply)
        except GopherError as error:
            cut = error
        return None if stream.is_over else stream.pause_seconds(cut)


def _wait_ended(ended: threading.Event, failure: BaseException) -> BaseException:
    """Wait for the children's end, which must not hold for long a program that is told to end; return what the block has failed by."""
    try:
        ended.wait(None if isinstance(failure, Exception) else CLEANUP_SECONDS)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - raised again by the block
        return error  # noqa: ASYNC104 - likewise
    return failure
