"""An example for the help of each command that takes more than a name or two; a test parses them all."""

from __future__ import annotations

from typing import Final

_JOB: Final = "019a7c31-5b20-7c8e-9f4d-2a6b1c0d3e5f"

EXAMPLES: Final = {
    "submit": """gopher submit mail.welcome -p '{"to": "ada@example.org"}' --wait""",
    "watch": f"gopher watch {_JOB}",
    "cancel": f"gopher cancel {_JOB} --reason 'wrong list'",
    "schedule create": "gopher schedule create nightly '0 2 * * MON-FRI' report --tz Europe/Berlin",
    "bulk": "gopher bulk retry --type mail.welcome --label tenant=acme --wait",
    "bulk cancel": "gopher bulk cancel --queue mail --submitted-before 2030-01-31T12:00:00Z",
    "bulk retry": "gopher bulk retry --type mail.welcome --label tenant=acme --wait",
    "bulk delete": "gopher bulk delete --state completed --queue mail --confirm mail",
    "bulk watch": f"gopher bulk watch {_JOB}",
    "gopher-worker": "gopher-worker --app shop.jobs:registry --queues mail=3,default=1",
}
"""By command, or program; none is wider than the help, which would break it."""


def epilogue_of(command: str) -> str:
    """Return what ends the help of a command; empty where it needs no example."""
    example = EXAMPLES.get(command)
    return f"Example:\n  {example}" if example else ""
