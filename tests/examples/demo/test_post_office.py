"""`examples.demo.post_office`: a mail server that refuses, puts off and keeps mail."""

from __future__ import annotations

import smtplib
import socket
from typing import TYPE_CHECKING

import pytest

from examples.demo.post_office import PostOffice

if TYPE_CHECKING:
    from pathlib import Path


def ask(office: PostOffice, address: str) -> int:
    """Return the server's answer to a mail of one line."""
    with smtplib.SMTP("127.0.0.1", office.port, timeout=10) as smtp:
        refused = {}
        try:
            smtp.sendmail("shop@example.com", [address], "Subject: hello\r\n\r\nhello\r\n")
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
    return refused[address][0] if refused else 250


def test_post_office_keeps_mail_for_a_mailbox(tmp_path: Path) -> None:
    """What is accepted lies in a file of the mailbox's folder, byte for byte."""
    with PostOffice(tmp_path, ["ada@example.com"]) as office:
        answer = ask(office, "ada@example.com")
        (delivery,) = office.deliveries()

    assert answer == 250
    assert delivery.recipient == "ada@example.com"
    assert delivery.path.parent == tmp_path / "ada@example.com"
    assert delivery.path.read_bytes() == b"Subject: hello\r\n\r\nhello\r\n"


def test_post_office_refuses_an_unknown_mailbox_until_it_is_opened(tmp_path: Path) -> None:
    """An address is answered 550 for as long as nobody opens its mailbox, then 250."""
    with PostOffice(tmp_path, []) as office:
        before = [ask(office, "new@example.com"), ask(office, "new@example.com")]
        office.open_mailbox("new@example.com")
        after = ask(office, "new@example.com")

        assert (before, after) == ([550, 550], 250)
        assert office.tries("new@example.com") == 3
        assert [delivery.recipient for delivery in office.deliveries()] == ["new@example.com"]


def test_post_office_puts_a_greylisted_address_off_once(tmp_path: Path) -> None:
    """The first delivery is answered 451, the next is taken."""
    with PostOffice(tmp_path, ["slow@example.com"], greylisted=["slow@example.com"]) as office:
        answers = [ask(office, "slow@example.com") for _ in range(3)]

    assert answers == [451, 250, 250]


def test_post_office_closes_its_port_at_the_end(tmp_path: Path) -> None:
    """After the block nobody listens any more."""
    with PostOffice(tmp_path, []) as office:
        port = office.port

    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
