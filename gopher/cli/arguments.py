"""How the arguments of the commands are written that are neither plain text nor numbers: lengths of time, moments, labels, payloads."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter, Token, validators

from gopher.config import parse_seconds
from gopher.errors import invalid
from gopher.retry import MAX_ATTEMPTS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence


def _seconds(_: object, tokens: Sequence[Token]) -> float:
    return parse_seconds(tokens[0].value)


def _moment(_: object, tokens: Sequence[Token]) -> datetime:
    text = tokens[0].value
    try:
        return datetime.now(UTC) + timedelta(seconds=parse_seconds(text))
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"expected a moment (2030-01-31T12:00:00Z; local time without a zone) or a length of time from now (1h30m), got {text!r}"
        ) from None


Seconds: TypeAlias = Annotated[float | None, Parameter(converter=_seconds, metavar="SECONDS")]
Moment: TypeAlias = Annotated[datetime | None, Parameter(converter=_moment, metavar="MOMENT")]
Labels: TypeAlias = Annotated[list[str] | None, Parameter("--label", negative=(), metavar="KEY=VALUE")]
Retries: TypeAlias = Annotated[
    int | None, Parameter(["--retries", "-r"], validator=validators.Number(gte=0, lte=MAX_ATTEMPTS_LIMIT - 1))
]
State: TypeAlias = Literal["scheduled", "enqueued", "processing", "retrying", "completed", "failed", "cancelled"]


def labels_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return the labels from `key=value` texts.

    Raises:
        InvalidRequestError: One has no `=`, or a key comes twice.
    """
    labels: dict[str, str] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key or key in labels:
            raise invalid("--label", "LABELS", f"expected KEY=VALUE, each key once, got {pair!r}")
        labels[key] = value
    return labels


def payload_of(text: str) -> bytes:
    """Return the payload: of the file for `@FILE`, of standard input for `-`, else the text itself.

    Raises:
        InvalidRequestError: The file cannot be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise invalid("--payload", "UNREADABLE", f"cannot read {text[1:]!r}: {error.strerror}") from error
