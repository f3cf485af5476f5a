"""The methods of the client for programs that block whose calls stream both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, cast

from gopher.client.submit_stream import SubmitStream
from gopher.errors import GopherError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from gopher.client.submission import JobItem
    from gopher.client.submit_stream import Answer


class StreamMethods(ABC):
    """What the client for programs that block can do in a call that streams both ways."""

    namespace: str

    @abstractmethod
    def _submit_over(self, stream: SubmitStream) -> Generator[bytes]:
        """Make one call of a stream of submits and yield its replies."""

    @abstractmethod
    def _pause(self, seconds: float) -> None: ...

    def submit_stream(self, items: Iterable[JobItem]) -> Iterator[Answer]:
        """Submit jobs as they are read, and yield what each came to, in order: a receipt, or the error that refuses it.

        Items are read in another thread, at most 256 (or 4 MiB) ahead of the answers that were taken. What reading them raises is
        raised here once all before it are answered. Leaving the iterator early ends the stream; items that were read by then may
        or may not be jobs. A stream that is cut goes on by itself, if all items without an answer have a `request_id`.

        Args:
            items: Mappings as for `submit_many`; any number.

        Raises:
            GopherError: The stream was cut; items without an answer may or may not be jobs.
        """
        stream = SubmitStream(self.namespace, cast("Iterable[Mapping[str, object]]", items))
        try:
            while True:
                try:
                    with closing(self._submit_over(stream)) as replies:
                        for reply in replies:
                            yield from stream.settle(reply)
                    break
                except GopherError as error:
                    pause_seconds = stream.pause_seconds(error)
                self._pause(pause_seconds)
            yield from stream.refused()
            stream.raise_failure()
        finally:
            stream.close()
