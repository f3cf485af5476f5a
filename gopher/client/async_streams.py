"""The methods of the clients whose methods are awaited whose calls stream both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from gopher.client.submit_stream import SubmitStream
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from gopher.client.submission import JobItem
    from gopher.client.submit_stream import Answer


class AsyncStreamMethods(ABC):
    """What the clients whose methods are awaited can do in a call that streams both ways."""

    namespace: str

    @abstractmethod
    def _submit_over(self, stream: SubmitStream) -> AsyncGenerator[bytes]:
        """Make one call of a stream of submits and yield its replies."""

    @abstractmethod
    async def _pause(self, seconds: float) -> None: ...

    async def submit_stream(self, items: Iterable[JobItem]) -> AsyncGenerator[Answer]:
        """Submit jobs as they are read, and yield what each came to, in order: a receipt, or the error that refuses it."""
        stream = SubmitStream(self.namespace, cast("Iterable[Mapping[str, object]]", items))
        try:
            while True:
                replies = self._submit_over(stream)
                try:
                    async for reply in replies:
                        for answer in stream.settle(reply):
                            yield answer
                    break
                except GopherError as error:
                    pause_seconds = stream.pause_seconds(error)
                finally:
                    await replies.aclose()  # noqa: ASYNC102 -- it ends the call and waits for nothing
                await self._pause(pause_seconds)
            for answer in stream.refused():
                yield answer
            stream.raise_failure()
        finally:
            stream.close()
