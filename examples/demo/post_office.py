"""The mail server of the demo: a real SMTP server (aiosmtpd) on 127.0.0.1 that keeps what it receives as files.

It answers as mail servers do: an unknown mailbox is refused for good (550), and a greylisted one is put off at its first delivery
(451) and accepted at the next. aiosmtpd runs in a thread with a loop of its own; the state the two threads share is under a lock.
"""

from __future__ import annotations

import asyncio  # noqa: TID251  # aiosmtpd speaks asyncio, in a thread of its own
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from aiosmtpd.controller import Controller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from pathlib import Path
    from types import TracebackType

    from aiosmtpd.smtp import SMTP, Envelope, Session

ACCEPTED: Final = "250 2.0.0 accepted"
TRY_LATER: Final = "451 4.7.1 greylisted, try again later"
NO_MAILBOX: Final = "550 5.1.1 no such mailbox"


@dataclass(frozen=True)
class Delivery:
    """One mail as the server took it.

    Attributes:
        recipient: Whose mailbox it went to.
        path: The file it lies in, as it came over the wire.
    """

    recipient: str
    path: Path


class BoundController(Controller):
    """aiosmtpd's controller on a socket that is bound already, so that the system can pick the port."""

    def __init__(self, office: PostOffice, listener: socket.socket) -> None:
        host, port = listener.getsockname()
        # A loop of the plain kind: what `new_event_loop` gives may have been changed by a library that hosts asyncio elsewhere.
        super().__init__(office, hostname=host, port=port, loop=asyncio.SelectorEventLoop())
        self.listener = listener

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self.listener)


class PostOffice:
    """A mail server for the length of a `with` block.

    Args:
        folder: Where mail is kept, one folder a mailbox.
        mailboxes: The addresses there are.
        greylisted: Those of them whose first delivery is put off.
    """

    def __init__(self, folder: Path, mailboxes: Iterable[str], greylisted: Iterable[str] = ()) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.mailboxes = set(mailboxes)
        self.greylisted = set(greylisted)
        self.seen: Counter[str] = Counter()
        self.received: list[Delivery] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.controller = BoundController(self, self.listener)

    def __enter__(self) -> Self:
        """Serve."""
        self.controller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the port and end the thread."""
        self.controller.stop()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return self.controller.port

    def open_mailbox(self, address: str) -> None:
        """Accept mail for one more address from now on."""
        with self.lock:
            self.mailboxes.add(address)

    def deliveries(self) -> list[Delivery]:
        """Return what was received so far, oldest first."""
        with self.lock:
            return list(self.received)

    def tries(self, address: str) -> int:
        """Return how often delivery to the address was asked for."""
        with self.lock:
            return self.seen[address]

    async def handle_RCPT(  # noqa: N802  # the hook's name is given by aiosmtpd
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer whether this address takes mail."""
        answer = self._decide(address)
        if answer is ACCEPTED:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        """Keep the mail."""
        content = envelope.original_content or b""
        for recipient in envelope.rcpt_tos:
            self._keep(recipient, content)
        return ACCEPTED

    def _decide(self, address: str) -> str:
        with self.lock:
            self.seen[address] += 1
            if address not in self.mailboxes:
                return NO_MAILBOX
            return TRY_LATER if address in self.greylisted and self.seen[address] == 1 else ACCEPTED

    def _keep(self, recipient: str, content: bytes) -> None:
        with self.lock:
            path = self.folder / recipient / f"{len(self.received) + 1:03}.eml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.received.append(Delivery(recipient, path))
