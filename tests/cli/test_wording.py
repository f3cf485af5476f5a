"""What is wrong is told in the words that were typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.test_commands import run

if TYPE_CHECKING:
    from tests.cli.test_commands import Run

__all__ = ["run"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("submit echo --retries 1000", '"1000" for --retries. Must be <= 99.'),
        ("submit echo -r -1", '"-1" for -r. Must be >= 0.'),
        ("submit echo --timeout 0", "--timeout: must be 1 ms to 30 days, got 0 s"),
        ("submit echo --retention 999999999", "--retention: must be 0 s to 30 days, got 999999999 s"),
        ("submit Echo", "TYPE: must match"),
        ("submit --type Echo", "--type: must match"),
        ("submit echo -q Q", "-q: must match"),
        ("submit echo -p {", "-p: must be JSON"),
        (
            "submit echo --label k=v --label {}=v".format("k" * 64),
            f"--label {'k' * 64!r}: the key must have 1 to 63 bytes, got 64",
        ),
        ("get nothing", "ID: 'nothing' is no job id"),
        ("cancel nothing --grace 400s", "--grace: must be 0 s to 300 s, got 400 s"),
        ("schedule create n * echo", "CRON: must have 5 fields"),
        ("schedule create n @daily echo --tz Nowhere", "--tz: no time zone is named 'Nowhere'"),
        ("schedule create n @daily echo --time-zone=Nowhere", "--time-zone: no time zone is named 'Nowhere'"),
        ("schedule create n @daily echo --jitter 2d -q Q", "--jitter: must be 0 s to 1 days, got 172800 s; -q: must match"),
        ("list --type Echo", "--type: must match"),
        ("update-queue Q --limit 3", "QUEUE: must match"),
        ("queues --namespace N", "--namespace: must match"),
        ("bulk cancel --label x", "--label: expected KEY=VALUE"),
    ],
)
def test_fault_is_told_by_the_option_that_was_typed(run: Run, command: str, told: str) -> None:
    """The name and the numbers are the command's, not those of the message that it sends."""
    code, out, err = run(*command.split())

    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 0


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (
            "http://127.0.0.1:50051/api",
            "--server: expected HOST:PORT of the server's gRPC, got the URL 'http://127.0.0.1:50051/api': ",
        ),
        ("127.0.0.1", "--server: expected HOST:PORT with a port from 0 to 65535, got '127.0.0.1'"),
        ("localhost:99999", "--server: expected HOST:PORT"),
        ("127.0.0.1:50051/", "--server: expected HOST:PORT"),
    ],
)
def test_server_that_is_no_address_is_named_as_such(run: Run, server: str, told: str) -> None:
    """Nothing is looked up or tried again."""
    code, out, err = run("queues", "--server", server)

    assert (code, out) == (2, "")
    assert err.startswith(f"gopher: {told}")


def test_token_is_refused_while_it_protects_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an option and as a variable; nothing is sent."""
    by_option = run("submit", "echo", "--token", "secret")
    monkeypatch.setenv("GOPHER_TOKEN", "secret")
    by_variable = run("queues")

    for code, out, err in (by_option, by_variable):
        assert (code, out) == (2, "")
        assert err == "gopher: --token: servers check no token yet, so one would protect nothing (env GOPHER_TOKEN)"
