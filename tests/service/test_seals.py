"""Sealed texts: what was closed is opened by the same seal, and by no other, changed in no place."""

from __future__ import annotations

import pytest

from gopher.service.seals import Seal

SECRET = b"secret"


@pytest.mark.parametrize("data", [b"", b"place", bytes(range(256))])
def test_text_opens_to_what_was_closed(data: bytes) -> None:
    """Any bytes, also none; any server's seal about the same does it."""
    assert Seal(SECRET, "list", b"\x00").open(Seal(SECRET, "list", b"\x00").close(data)) == data


@pytest.mark.parametrize("other", [Seal(b"another", "list"), Seal(SECRET, "lists"), Seal(SECRET), Seal(SECRET, "list", "")])
def test_text_of_another_seal_does_not_open(other: Seal) -> None:
    """Neither with another secret nor about another thing."""
    assert Seal(SECRET, "list").open(other.close(b"place")) is None


def test_changed_text_does_not_open() -> None:
    """Whichever letter is changed, left out or added, and whatever is no such text at all."""
    seal = Seal(SECRET, "list")
    text = seal.close(b"a place")
    changed = [text[:at] + ("B" if text[at] != "B" else "C") + text[at + 1 :] for at in range(text.index("="))]
    shorter = [text[:at] for at in range(len(text))]

    for wrong in [*changed, *shorter, text + "AAAA", text[:4] + "\n" + text[4:], "x", "é", "A" * 5000]:
        assert seal.open(wrong) is None
