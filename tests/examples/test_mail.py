"""`examples.mail`: one SMTP delivery to all recipients or none, against a real SMTP server."""

from __future__ import annotations

import email
import socket
from email.policy import default
from typing import TYPE_CHECKING

import msgspec
import pytest

from examples.demo.post_office import PostOffice
from examples.mail import Email, MailRefusedError, compose, deliver, message_id, server_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def office(tmp_path: Path) -> Iterator[PostOffice]:
    mailboxes = ("ada@example.com", "grace@example.com", "slow@example.com")
    with PostOffice(tmp_path / "mail", mailboxes, greylisted=["slow@example.com"]) as office:
        yield office


def send(mail: Email, office: PostOffice) -> None:
    deliver(mail, compose(mail, message_id("job-1")), "127.0.0.1", office.port)


def test_deliver_hands_the_mail_over_as_it_was_written(office: PostOffice) -> None:
    """Subject, body and Message-ID arrive unchanged, also beyond ASCII and with a line that is a lone dot."""
    mail = Email(to="ada@example.com", subject="Grüße", body="first\n.\nlast: ✓\n", sender="shop@example.com")

    send(mail, office)

    (delivery,) = office.deliveries()
    received = email.message_from_bytes(delivery.path.read_bytes(), policy=default)
    assert received["Subject"] == "Grüße"
    assert received["From"] == "shop@example.com"
    assert received["To"] == "ada@example.com"
    assert received["Message-ID"] == "<job-1@gopher.localhost>"
    assert received.get_content().replace("\r\n", "\n") == "first\n.\nlast: ✓\n"


def test_deliver_reaches_every_recipient_once(office: PostOffice) -> None:
    """Several recipients each get one copy, and one named twice is not mailed twice."""
    mail = Email(to=["ada@example.com", "grace@example.com", "ada@example.com"], subject="hello")

    send(mail, office)

    assert sorted(delivery.recipient for delivery in office.deliveries()) == ["ada@example.com", "grace@example.com"]


def test_deliver_sends_nothing_when_one_recipient_is_refused(office: PostOffice) -> None:
    """A refused recipient is a permanent error and keeps the mail from the others, so that a requeue mails nobody twice."""
    mail = Email(to=["ada@example.com", "nobody@example.com"], subject="hello")

    with pytest.raises(
        MailRefusedError, match=r"^recipient nobody@example.com was answered 550 5.1.1 no such mailbox$"
    ) as caught:
        send(mail, office)

    assert caught.value.is_permanent
    assert office.deliveries() == []


def test_deliver_tells_a_temporary_refusal_apart(office: PostOffice) -> None:
    """A 451 is temporary, and the same mail is delivered at the next try."""
    mail = Email(to="slow@example.com", subject="hello")

    with pytest.raises(MailRefusedError, match="451") as caught:
        send(mail, office)
    send(mail, office)

    assert not caught.value.is_permanent
    assert [delivery.recipient for delivery in office.deliveries()] == ["slow@example.com"]


def test_deliver_raises_oserror_when_no_server_listens() -> None:
    """A port without a server is an error that a retry may cure, not a refusal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(OSError, match="refused"):
        deliver(Email(to="ada@example.com", subject="hello"), b"", "127.0.0.1", port)


@pytest.mark.parametrize(
    ("payload", "environ", "expected"),
    [
        ({}, {}, ("127.0.0.1", 1025)),
        ({}, {"SMTP_HOST": "mail.internal", "SMTP_PORT": "25"}, ("mail.internal", 25)),
        ({"host": "relay", "port": 2525}, {"SMTP_HOST": "mail.internal", "SMTP_PORT": "25"}, ("relay", 2525)),
    ],
)
def test_server_address_prefers_payload_over_environment(
    payload: dict[str, str | int], environ: dict[str, str], expected: tuple[str, int]
) -> None:
    """The payload goes before the environment, the environment before the default."""
    mail = msgspec.convert({"to": "ada@example.com", "subject": "hello", **payload}, Email)

    assert server_address(mail, environ) == expected


@pytest.mark.parametrize("port", ["0", "65536", "smtp", "-25", "²5", "9" * 5_000])
def test_server_address_refuses_a_bad_port_in_one_line(port: str) -> None:
    """A port in the environment that is none is named."""
    with pytest.raises(ValueError, match=r"^SMTP_PORT must be a port number from 1 to 65535, not "):
        server_address(Email(to="ada@example.com", subject="hello"), {"SMTP_PORT": port})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", "no-at-sign"),
        ("to", "ada@example.com\r\nBcc: eve@example.com"),
        ("to", "ada@example.com\n"),
        ("to", []),
        ("to", ["ada@example.com", "a b@example.com"]),
        ("sender", "me@example.com>\r\nRCPT TO:<eve@example.com"),
        ("subject", "hello\nBcc: eve@example.com"),
        ("port", 0),
        ("port", 65536),
    ],
)
def test_email_payload_refuses_what_is_no_mail(field: str, value: str | int | list[str]) -> None:
    """What would inject a header or a command, or is no address or port, is refused by the type, with the field's path."""
    payload = {"to": "ada@example.com", "subject": "hello", field: value}

    with pytest.raises(msgspec.ValidationError, match=rf"at `\$\.{field}(\[[^\]]*\])?`$"):
        msgspec.convert(payload, Email)
