"""What Python code says of a job that it submits, as a caller or from inside a handler: its options, and what they may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

import msgspec

from gopher.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

Payload: TypeAlias = object
"""A JSON value, a dataclass, a TypedDict or a msgspec Struct (all sent as JSON), or bytes."""

_encode: Final = msgspec.json.Encoder().encode
_DAY_MS: Final = 24 * 3600 * 1000
DEFAULT_MAX_PAYLOAD_BYTES: Final = 256 * 1024
MAX_BACKOFF_MS: Final = 7 * _DAY_MS
MAX_BACKOFF_MULTIPLIER: Final = 10
MAX_TIMEOUT_MS: Final = 30 * _DAY_MS
MAX_DELAY_MS: Final = 3650 * _DAY_MS
MAX_RETENTION_MS: Final = 30 * _DAY_MS


class JobOptions(TypedDict, total=False):
    """What every submit takes besides type and payload; left out or None means what the handler declares, or the default.

    `content_type` is `application/json`, for bytes `application/octet-stream`; bytes that are JSON already can be sent as such. A
    `datetime` must have a time zone.
    """

    queue: str | None
    priority: str | None
    content_type: str | None
    labels: Mapping[str, str] | None
    max_attempts: int | None
    backoff_initial_seconds: float | None
    backoff_max_seconds: float | None
    backoff_multiplier: float | None
    non_retryable_reasons: Sequence[str] | None
    timeout_seconds: float | None
    delay_seconds: float | None
    run_at: datetime | None
    deadline: datetime | None
    unique_key: str | None
    limit_key: str | None
    retention_seconds: float | None


def encode_payload(payload: Payload, *, field: str = "payload") -> bytes:
    """Return the bytes of a payload.

    Raises:
        InvalidRequestError: It is neither bytes nor can it be written as JSON.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    try:
        return encode_json(payload)
    except ValueError as error:
        raise invalid(field, "BAD_JSON", f"cannot be written as JSON: {error}") from error


def encode_json(value: object) -> bytes:
    """Return a value as JSON.

    Raises:
        ValueError: JSON cannot hold it; the message says why.
    """
    try:
        data = _encode(value)
        # msgspec writes numbers that JSON does not have as null; only a text with a null in it can hold one.
        is_exact = value is None or b"null" not in data or _is_finite(msgspec.to_builtins(value, enc_hook=_skip))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not is_exact:
        raise ValueError("it holds NaN or an infinity, which JSON cannot say")
    return data


def _skip(_raw: object) -> None:
    """Take JSON that is encoded already, which `msgspec.to_builtins` does not know, for what it is: it holds no NaN."""


def _is_finite(value: object) -> bool:
    """Tell whether every number in a value is finite; without recursion, since it may be nested deeper than Python recurses."""
    waiting = [value]
    for each in waiting:
        if isinstance(each, float) and not math.isfinite(each):
            return False
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
    return True


def moment_ms(moment: datetime) -> int:
    """Return a moment as ms since the epoch.

    Raises:
        ValueError: It has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("has no time zone: say datetime(..., tzinfo=UTC) or .astimezone()")
    return round(moment.timestamp() * 1000)
