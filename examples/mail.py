"""What an `email` job does: one SMTP delivery, to all of its recipients or to none.

The server's answer decides the job's fate: a 4xx is temporary and worth another attempt, a 5xx is permanent and is not. If one of
several recipients is refused, nothing is sent, because a retry would mail the others twice. The Message-ID is made from the
job's id: an attempt that delivered and then lost its worker is repeated under the same id, and the receiver can drop the copy.
"""

from __future__ import annotations

import re
import smtplib
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 1025  # the port on which mail catchers for development listen by custom
SOCKET_TIMEOUT_SECONDS: Final = 10.0  # for each step of the conversation; the attempt's own timeout cannot end a thread
WIRE_FORMAT: Final = SMTP.clone(cte_type="7bit")  # any server takes it, also one without 8BITMIME

Address = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+@[!-~]+\Z", max_length=254)]
Line = Annotated[str, msgspec.Meta(pattern=r"\A[^\r\n]*\Z", max_length=998)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Recipients = Annotated[list[Address], msgspec.Meta(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Email:
    """The payload of an `email` job.

    Attributes:
        to: One address or up to 100 (as many as every server must take, RFC 5321 section 4.5.3.1.8); ASCII, 254 characters each.
        subject: One line, up to 998 characters.
        body: Plain text.
        sender: The address it comes from.
        host: The SMTP server; `None` means `SMTP_HOST` from the worker's environment, else 127.0.0.1.
        port: Its TCP port; `None` means `SMTP_PORT` from the worker's environment, else 1025.
    """

    to: Address | Recipients
    subject: Line
    body: str = ""
    sender: Address = "gopher@localhost"
    host: str | None = None
    port: Port | None = None

    @property
    def recipients(self) -> list[str]:
        """The addresses to deliver to, each once, in the order given."""
        return list(dict.fromkeys([self.to] if isinstance(self.to, str) else self.to))


class MailRefusedError(Exception):
    """The SMTP server said no; nothing was delivered.

    Attributes:
        code: Its three-digit reply.
        is_permanent: Whether the same mail will be refused again until somebody changes something (5xx).
    """

    def __init__(self, step: str, code: int, answer: str) -> None:
        super().__init__(f"{step} was answered {code} {answer}")
        self.code = code
        self.is_permanent = code >= 500


def server_address(email: Email, environ: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port to deliver to: the payload's, else the environment's, else the defaults.

    Raises:
        ValueError: `SMTP_PORT` is not a port number.
    """
    host = email.host or environ.get("SMTP_HOST") or DEFAULT_HOST
    if email.port is not None:
        return host, email.port
    text = environ.get("SMTP_PORT") or str(DEFAULT_PORT)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"SMTP_PORT must be a port number from 1 to 65535, not {text!r}")
    return host, int(text)


def message_id(job_id: str) -> str:
    """Return the Message-ID of a job's mail, the same for each of its attempts."""
    return f"<{job_id}@gopher.localhost>"


def compose(email: Email, mail_id: str) -> bytes:
    """Return the mail as it goes over the wire."""
    message = EmailMessage(policy=WIRE_FORMAT)
    message["Message-ID"] = mail_id
    message["Date"] = formatdate()
    message["From"] = email.sender
    message["To"] = ", ".join(email.recipients)
    message["Subject"] = email.subject
    message.set_content(email.body)
    return message.as_bytes()


def deliver(email: Email, content: bytes, host: str, port: int) -> None:
    """Hand the mail to the server at `host:port`. Blocks; each step takes `SOCKET_TIMEOUT_SECONDS` at most.

    Raises:
        MailRefusedError: The server refused the sender, a recipient or the content.
        OSError: The server cannot be reached or broke off (`smtplib.SMTPException` is one); what was not acknowledged counts as
            not delivered.
    """
    smtp = smtplib.SMTP(host, port, timeout=SOCKET_TIMEOUT_SECONDS)
    try:
        smtp.ehlo_or_helo_if_needed()
        _accept(f"sender {email.sender}", smtp.mail(email.sender))
        for recipient in email.recipients:
            _accept(f"recipient {recipient}", smtp.rcpt(recipient))
        _accept("the content", _send_content(smtp, content))
    finally:
        # The mail's fate is settled by now: a server that mishandles QUIT must not turn a delivery into a failure.
        with suppress(smtplib.SMTPException):
            smtp.quit()
        smtp.close()


def _send_content(smtp: smtplib.SMTP, content: bytes) -> tuple[int, bytes]:
    try:
        return smtp.data(content)
    except smtplib.SMTPDataError as error:  # DATA itself was refused, before any content
        answer = error.smtp_error
        return error.smtp_code, answer if isinstance(answer, bytes) else answer.encode()


def _accept(step: str, reply: tuple[int, bytes]) -> None:
    code, answer = reply
    if not 200 <= code <= 299:
        raise MailRefusedError(step, code, " ".join(answer.decode("ascii", "replace").split()))
