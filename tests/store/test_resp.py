"""What an error reply of Redis means to us."""

from __future__ import annotations

import pytest

from gopher.errors import ScriptReplyError, StoreError, StoreFullError, StoreUnavailableError
from gopher.store.resp import NoScriptError, ReadOnlyReplicaError, error_from_reply, pack


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", StoreUnavailableError),
        ("CLUSTERDOWN The cluster is down", StoreUnavailableError),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", StoreUnavailableError),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailableError),
        ("MOVED 3999 10.1.2.3:6381", StoreUnavailableError),
        ("ASK 3999 10.1.2.3:6381", StoreUnavailableError),
        ("READONLY You can't write against a read only replica.", ReadOnlyReplicaError),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFullError),
        ("NOSCRIPT No matching script. Please use EVAL.", NoScriptError),
        ("NOAUTH Authentication required.", StoreError),
        ("WRONGPASS invalid username-password pair or user is disabled.", StoreError),
        ("NOPERM User x has no permissions to run the 'evalsha' command", StoreError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", ScriptReplyError),
        ("ERR unknown command", ScriptReplyError),
        ("", ScriptReplyError),
    ],
)
def test_error_reply_becomes_the_error_of_its_kind(text: str, kind: type[StoreError]) -> None:
    """The first word decides the kind; what passes is unavailable, outcome known, and no address is passed on."""
    error = error_from_reply(text)

    assert type(error) is kind
    assert not getattr(error, "outcome_unknown", False)
    assert "10.1.2.3" not in error.message


def test_pack_writes_text_bytes_and_numbers() -> None:
    """A command is packed as RESP, text as UTF-8, numbers in decimal."""
    packed = pack(("SET", b"\xff", "ü", 2**60, 1.5))

    assert packed == b"*5\r\n$3\r\nSET\r\n$1\r\n\xff\r\n$2\r\n\xc3\xbc\r\n$19\r\n1152921504606846976\r\n$3\r\n1.5\r\n"
