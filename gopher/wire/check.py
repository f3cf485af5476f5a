"""What a field of a request must hold, and the collector that names every fault of a message at once.

Each check takes the collector, the path of the field and its value; it notes a violation or returns the value converted. Nothing
raises before `Faults.refuse`, so a message with five faults is refused once, with all five.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from gopher.errors import InvalidRequestError, Violation
from gopher.job import (
    BYTES_CONTENT_TYPE,
    CONTENT_TYPES,
    DEFAULT_NAMESPACE,
    DEFAULT_QUEUE,
    JSON_CONTENT_TYPE,
    NAME_EXAMPLE,
    REASON_EXAMPLE,
    REASON_PATTERN,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

MAX_TEXT_BYTES: Final = 255
MAX_LABELS: Final = 64
MAX_REASONS: Final = 16
"""Chosen: a policy names a few."""
MAX_LABEL_KEY_BYTES: Final = 63
MAX_JSON_DEPTH: Final = 64
SECOND_MS: Final = 1000
DAY_MS: Final = 24 * 3600 * SECOND_MS
LAST_MOMENT_MS: Final = 7_258_118_400_000
"""2200-01-01, chosen: later than any honest plan, and far below where a float of Lua or JSON loses a ms."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_REASON: Final = re.compile(REASON_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_NANOS: Final = 999_999_999
_NANOS_A_MS: Final = 1_000_000
_SHOWN: Final = 64  # characters of a faulty value that a message repeats


class Faults:
    """The violations found so far in one message.

    Args:
        path: What the path of each field begins with: `job.`, `jobs[3].`.
    """

    __slots__ = ("_path", "_violations")

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._violations: list[Violation] = []

    def add(self, field: str, reason: str, description: str) -> None:
        """Note a violation."""
        self._violations.append(Violation(self._path + field, reason, description))

    def refuse(self) -> None:
        """Raise if anything was noted.

        Raises:
            InvalidRequestError: It names every violation, in the order found.
        """
        if self._violations:
            raise InvalidRequestError(*self._violations)


def name(faults: Faults, field: str, value: str) -> str:
    """Check the name of a type, queue or namespace."""
    if not value:
        faults.add(field, "REQUIRED", "must be set")
    elif not _is_name(value):
        faults.add(field, "BAD_NAME", f"must match ^{_NAME.pattern}$, as {NAME_EXAMPLE} does, got {value[:_SHOWN]!r}")
    return value


@lru_cache(maxsize=4096)
def _is_name(value: str) -> bool:
    """Tell whether a text is a name; the same few come again and again."""
    return _NAME.fullmatch(value) is not None


def optional_name(faults: Faults, field: str, value: str) -> str | None:
    """Check a name that may be left out."""
    return name(faults, field, value) if value else None


def namespace(value: str) -> str:
    """Return the namespace of a request, `default` if unset.

    Raises:
        InvalidRequestError: BAD_NAME.
    """
    return _name_alone("namespace", value) if value else DEFAULT_NAMESPACE


def queue(value: str) -> str:
    """Return the queue that a request must name.

    Raises:
        InvalidRequestError: REQUIRED or BAD_NAME.
    """
    return _name_alone("queue", value)


def _name_alone(field: str, value: str) -> str:
    faults = Faults()
    name(faults, field, value)
    faults.refuse()
    return value


def queue_or_default(faults: Faults, field: str, value: str) -> str:
    """Check the queue of a submission, `default` if unset."""
    return name(faults, field, value) if value else DEFAULT_QUEUE


def text(faults: Faults, field: str, value: str) -> str | None:
    """Check a key or a note: at most 255 bytes, no control characters; None if unset."""
    if not value:
        return None
    size = len(value.encode())
    if size > MAX_TEXT_BYTES:
        faults.add(field, "OUT_OF_RANGE", f"must be at most {MAX_TEXT_BYTES} bytes, got {size}")
    elif _CONTROL.search(value):
        faults.add(field, "OUT_OF_RANGE", "must not contain control characters")
    return value


def labels(faults: Faults, field: str, pairs: Mapping[str, str]) -> dict[str, str]:
    """Check labels: at most 64, keys of 1 to 63 bytes, values of at most 255, no control characters."""
    if not pairs:
        return {}
    if len(pairs) > MAX_LABELS:
        faults.add(field, "LABELS", f"must be at most {MAX_LABELS}, got {len(pairs)}")
    for key, value in pairs.items():
        path = f"{field}[{key[:_SHOWN]!r}]"
        if not 1 <= len(key.encode()) <= MAX_LABEL_KEY_BYTES:
            faults.add(path, "LABELS", f"the key must have 1 to {MAX_LABEL_KEY_BYTES} bytes, got {len(key.encode())}")
        if len(value.encode()) > MAX_TEXT_BYTES:
            faults.add(path, "LABELS", f"the value must have at most {MAX_TEXT_BYTES} bytes, got {len(value.encode())}")
        if _CONTROL.search(key) or _CONTROL.search(value):
            faults.add(path, "LABELS", "key and value must not contain control characters")
    return dict(pairs)


def integer(faults: Faults, field: str, value: int, low: int, high: int) -> int | None:
    """Check a whole number; 0 means unset and gives None."""
    if value == 0:
        return None
    if not low <= value <= high:
        faults.add(field, "OUT_OF_RANGE", f"must be {low} to {high}, got {value}")
    return value


def reasons(faults: Faults, field: str, value: Sequence[str]) -> tuple[str, ...]:
    """Check reasons of failures: at most 16, UPPER_SNAKE."""
    if len(value) > MAX_REASONS:
        faults.add(field, "OUT_OF_RANGE", f"must be at most {MAX_REASONS}, got {len(value)}")
    for each in value[:MAX_REASONS]:
        if _REASON.fullmatch(each) is None:
            faults.add(field, "BAD_NAME", f"must match ^{REASON_PATTERN}$, as {REASON_EXAMPLE} does, got {each[:_SHOWN]!r}")
    return tuple(value)


def number(faults: Faults, field: str, value: float, low: float, high: float) -> float | None:
    """Check a number; 0 means unset and gives None. Not-a-number is out of every range."""
    if value == 0:
        return None
    if not low <= value <= high:
        faults.add(field, "OUT_OF_RANGE", f"must be {low:g} to {high:g}, got {value:g}")
    return value


def duration_ms(faults: Faults, field: str, value: Duration, low_ms: int, high_ms: int) -> int:
    """Check a length of time; a part of a ms counts as a whole one, so that nothing ends early."""
    seconds, nanos = value.seconds, value.nanos
    total_ms = seconds * SECOND_MS - (-nanos // _NANOS_A_MS)
    has_valid_nanos = 0 <= nanos <= _MAX_NANOS
    at_least = seconds * SECOND_MS * _NANOS_A_MS + nanos >= low_ms * _NANOS_A_MS
    if not has_valid_nanos or not at_least or total_ms > high_ms:
        faults.add(
            field,
            "OUT_OF_RANGE",
            f"must be {_time_text(low_ms)} to {_time_text(high_ms)}, got {_length_text(seconds, nanos)}",
        )
    return total_ms


def _length_text(seconds: int, nanos: int) -> str:
    """Return a length of time; one that is no valid message as the message has it."""
    is_valid = abs(nanos) <= _MAX_NANOS and seconds * nanos >= 0
    return f"{seconds + nanos / (_MAX_NANOS + 1):.12g} s" if is_valid else f"seconds={seconds} nanos={nanos}"


def moment_ms(faults: Faults, field: str, value: Timestamp) -> int:
    """Check a moment: from 1970 to 2200; a part of a ms counts as a whole one, so that nothing starts early."""
    seconds, nanos = value.seconds, value.nanos
    total_ms = seconds * SECOND_MS - (-nanos // _NANOS_A_MS)
    if seconds < 0 or not 0 <= nanos <= _MAX_NANOS or total_ms > LAST_MOMENT_MS:
        faults.add(
            field,
            "OUT_OF_RANGE",
            f"must lie between 1970-01-01 and 2200-01-01, got seconds={seconds} nanos={nanos}",
        )
    return total_ms


def _time_text(ms: int) -> str:
    if ms and ms % DAY_MS == 0:
        return f"{ms // DAY_MS} days"
    return f"{ms // SECOND_MS} s" if ms % SECOND_MS == 0 else f"{ms} ms"


def content_type(faults: Faults, field: str, value: str) -> str:
    """Check what a payload is; JSON if unset."""
    if value and value not in CONTENT_TYPES:
        known = f"{JSON_CONTENT_TYPE} or {BYTES_CONTENT_TYPE}"
        faults.add(field, "UNSUPPORTED_CONTENT_TYPE", f"must be {known}, got {value[:_SHOWN]!r}")
    return value or JSON_CONTENT_TYPE


def payload(faults: Faults, field: str, value: bytes, content_type: str, max_bytes: int) -> bytes:
    """Check a payload and keep its very bytes; empty JSON means null."""
    if len(value) > max_bytes:
        faults.add(field, "PAYLOAD_TOO_LARGE", f"must be at most {max_bytes} bytes, got {len(value)}")
    elif content_type == JSON_CONTENT_TYPE:
        if not value:
            return b"null"
        fault = json_fault(value)
        if fault is not None:
            faults.add(field, "BAD_JSON", f"must be JSON: {fault}")
    return value


_decode_json = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_JSON_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NUMBER_OR_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|(-?[0-9][0-9.eE+-]*)')
_ESCAPED_COLON: Final = b"\\u003"
_ROUND_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(each for each in range(256) if each not in b"[]{}")


def json_fault(payload: bytes) -> str | None:
    """Return what keeps the bytes from being JSON that every reader understands alike; None if nothing does.

    Refused beside faults of syntax: bytes that are not UTF-8, NaN and Infinity, numbers no float can hold (1e400), whole numbers
    of more than 4,300 digits, nesting deeper than 64, and a key that comes twice in an object.
    """
    try:
        value = _decode_json(payload)
    except UnicodeDecodeError:
        # The decoder counts from the start of the string, and only lone halves of surrogates are UTF-8's own business.
        return f"no UTF-8 at offset {_utf8_fault_offset(payload)}"
    except msgspec.ValidationError:
        return f"a number is out of range at offset {_bad_number_offset(payload)}"
    except msgspec.DecodeError as error:
        return _describe(str(error), len(payload))
    except RecursionError:
        return f"nested deeper than {MAX_JSON_DEPTH}"
    if _is_too_deep(payload):
        return f"nested deeper than {MAX_JSON_DEPTH}"
    # As many colons as keys of one object, which is so nearly always: none was there twice.
    if payload.count(b":") == (len(value) if isinstance(value, dict) else 0):
        return None
    return _repetition_fault(payload, value)


def repetition_fault(text: bytes, *, is_shallow: bool = False) -> str | None:
    """Return which key comes twice in an object, where readers differ in which of its values they take; None if none does.

    Args:
        text: JSON.
        is_shallow: Whether only the outermost value is looked at, which is an object then.
    """
    try:
        value = _decode_members(text) if is_shallow else _decode_json(text)
    except (msgspec.DecodeError, RecursionError):
        return None  # which is another fault
    return _repetition_fault(text, value)


def _repetition_fault(text: bytes, value: object) -> str | None:
    # What is read and written again has lost a colon with each key that came twice, and gained one for each that was escaped.
    with suppress(OverflowError):
        if _ESCAPED_COLON not in text and text.count(b":") == msgspec.json.encode(value).count(b":"):
            return None
    try:
        json.loads(text, object_pairs_hook=_refuse_repetition, parse_int=str, parse_float=str)
    except _RepetitionError as error:
        return f"the key {error.key[:_SHOWN]!r} comes twice in an object"
    except (ValueError, RecursionError):
        pass
    return None


class _RepetitionError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _refuse_repetition(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise _RepetitionError(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))


def _describe(message: str, size: int) -> str:
    """Turn `JSON is malformed: invalid character (byte 5)` into a clause with the offset."""
    what, _, place = message.removeprefix("JSON is malformed: ").partition(" (byte ")
    return f"{what} at offset {place.removesuffix(')')}" if place else f"the text ends too early at offset {size}"


def _utf8_fault_offset(payload: bytes) -> int:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _bad_number_offset(payload: bytes) -> int:
    for match in _NUMBER_OR_TEXT.finditer(payload):
        if match[1] is not None:
            try:
                _decode_json(match[1])
            except msgspec.ValidationError:
                return match.start()
    return 0


def _is_too_deep(payload: bytes) -> bool:
    """Tell whether valid JSON is nested deeper than allowed.

    Few brackets cannot be deep, which decides nearly every payload. Else only the brackets are kept, and each round takes the
    innermost pairs away: what is then left was deeper than there were rounds.
    """
    if payload.count(b"[") + payload.count(b"{") <= MAX_JSON_DEPTH:
        return False
    brackets = _JSON_TEXT.sub(b"", payload).translate(_ROUND_TO_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_JSON_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
