"""What the answer of a mail server means for a job: done, another attempt, or none.

Every handler of the examples that sends mail does it by `send`; `examples.mail`, which does the sending, knows nothing of Gopher.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import gopher
from examples.mail import MailRefusedError, compose, deliver, message_id, server_address

if TYPE_CHECKING:
    from examples.mail import Email


def send(job: gopher.SyncJobContext, email: Email, *, about: str) -> dict[str, gopher.JsonValue]:
    """Deliver one mail and return what to tell about it. Blocks.

    Args:
        job: Whose work it is.
        email: What to send.
        about: What the mail is about, such as the job's id. The Message-ID is made from it, so that of two mails about the same
            the receiver can drop one.

    Raises:
        gopher.Discard: The server said never.
        gopher.Retry: It said later, cannot be reached or broke off.
        ValueError: `SMTP_PORT` is not a port number.
    """
    host, port = server_address(email, os.environ)
    mail_id = message_id(about)
    job.progress(0.1, f"talking to {host}:{port}")
    try:
        deliver(email, compose(email, mail_id), host, port)
    except MailRefusedError as refusal:
        if refusal.is_permanent:
            raise gopher.Discard(f"{host}:{port}: {refusal}") from refusal
        raise gopher.Retry(f"{host}:{port}: {refusal}") from refusal
    except OSError as error:
        raise gopher.Retry(f"{host}:{port} cannot be reached or broke off: {error}") from error
    return {"message_id": mail_id, "recipients": [*email.recipients], "server": f"{host}:{port}"}
