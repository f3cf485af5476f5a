from __future__ import annotations

import re

import msgspec

from benchmarks.client import payload_of
from benchmarks.plan import PAYLOAD_BYTES
from benchmarks.systems import PEERS


def test_lock_names_no_registry() -> None:
    """The committed lock installs from whatever registry npm is set up for."""
    lock = (PEERS / "package-lock.json").read_text(encoding="utf-8")

    tarballs = re.findall(r'"resolved": "https?://([^/"]+)', lock)

    assert set(tarballs) <= {"registry.npmjs.org"}


def test_payload_has_the_bytes_asked_for() -> None:
    """What the table calls a 100-byte payload is 100 bytes of JSON."""
    assert len(msgspec.json.encode(payload_of(PAYLOAD_BYTES))) == 100
