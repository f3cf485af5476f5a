"""What a client streams, as the method that serves it sees it: one request after the other, or all that have arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from google.protobuf.message import Message

from gopher.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

RequestT = TypeVar("RequestT", bound=Message)


class Requests(Generic[RequestT]):
    """An asynchronous iterator of requests; it ends when the client has sent all.

    Args:
        receive: Waits for what arrives and returns it, at most so many messages; none: the client has sent all.
        parse: From bytes to the request; raises InvalidRequestError where they are none.
    """

    def __init__(self, receive: Callable[[int], Awaitable[Sequence[bytes]]], parse: Callable[[bytes], RequestT]) -> None:
        self._receive = receive
        self._parse = parse
        self._fault: InvalidRequestError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RequestT:
        requests = await self.take(1)
        if not requests:
            raise StopAsyncIteration
        return requests[0]

    async def take(self, most: int) -> list[RequestT]:
        """Wait for a request and return it with those that have arrived too.

        Args:
            most: How many to take at most.

        Returns:
            The requests in order; none: the client has sent all.

        Raises:
            InvalidRequestError: MALFORMED_MESSAGE; what came before it has been returned, what comes after it never is.
        """
        requests: list[RequestT] = []
        for message in await self._receive(most) if self._fault is None else ():
            try:
                requests.append(self._parse(message))
            except InvalidRequestError as error:
                self._fault = error
                break
        if self._fault is not None and not requests:
            raise self._fault
        return requests
