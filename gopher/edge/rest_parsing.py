"""Bytes and query strings become the declared requests, or a refusal that names the field and says what it must be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from gopher.breaker import Forced
from gopher.bulk import BulkKind
from gopher.edge.rest_bodies import NAME_PATTERN
from gopher.errors import InvalidRequestError, invalid
from gopher.job import JobState, Priority
from gopher.limits import PERIOD_NAMES
from gopher.wire import check

if TYPE_CHECKING:
    from collections.abc import Iterable

StructT = TypeVar("StructT", bound=msgspec.Struct)

BODY: Final = "body"

_PLACED: Final = re.compile(r"(?P<said>.*?)(?: - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_NAMED: Final = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "priority": tuple(Priority),
    "state": tuple(JobState),
    "states": tuple(JobState),
    "kind": tuple(BulkKind),
    "per": tuple(PERIOD_NAMES),
    "control": ("automatic", *Forced),
}
_REASONS: Final = {
    "matching regex": "BAD_NAME",
    "enum value": "BAD_ENUM",
    "<=": "OUT_OF_RANGE",
    ">=": "OUT_OF_RANGE",
    "of length": "OUT_OF_RANGE",
    "out of range": "OUT_OF_RANGE",
    "RFC3339": "BAD_TIME",
    "timezone": "BAD_TIME",
    "base64": "BAD_BASE64",
}
"""What msgspec's text holds -> our reason; anything else is BAD_TYPE."""
_SHOWN: Final = 64


def decode_body(kind: type[StructT], body: bytes) -> StructT:
    """Return the request that a body holds; an empty one is `{}`.

    Raises:
        InvalidRequestError: It is not JSON, or not what is declared.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _misfit(kind, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = check.json_fault(body) or "it cannot be decoded"
        raise invalid(BODY, "BAD_JSON", f"must be JSON: {fault}") from None


def decode_query(kind: type[StructT], items: Iterable[tuple[str, str]]) -> StructT:
    """Return the request that a query string holds.

    Raises:
        InvalidRequestError: It is not what is declared.
    """
    lists = {each.encode_name for each in msgspec.structs.fields(kind) if each.default_factory is list}
    found: dict[str, str | list[str]] = {}
    for name, value in items:
        before = found.get(name)
        if isinstance(before, list):
            before.append(value)
        elif before is not None:
            raise invalid(name[:_SHOWN], "REPEATED", "must be given once")
        else:
            found[name] = [value] if name in lists else value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(kind, str(error)) from None


def _misfit(kind: type[msgspec.Struct], text: str) -> InvalidRequestError:
    """Return the refusal for what msgspec says does not fit."""
    placed = _PLACED.fullmatch(text)
    said, path = (placed["said"], placed["path"] or "") if placed else (text, "")
    named = _NAMED.fullmatch(said)
    if named:
        field = f"{path}.{named['name'][:_SHOWN]}".lstrip(".")
        if named["what"] == "missing required":
            return invalid(field, "REQUIRED", "must be set")
        known = ", ".join(each.encode_name for each in msgspec.structs.fields(kind)) or "nothing"
        return invalid(field, "UNKNOWN_FIELD", f"is not known here; known: {known}")
    reason = next((reason for mark, reason in _REASONS.items() if mark in said), "BAD_TYPE")
    if reason == "BAD_ENUM" and (name := path.rpartition(".")[2].partition("[")[0]) in _WORDS:
        return invalid(path, reason, f"must be one of {', '.join(_WORDS[name])}")
    if reason == "BAD_TIME":
        return invalid(path, reason, "must be a moment with its zone, such as 2030-01-31T12:00:00Z")
    if reason == "BAD_NAME":
        return invalid(path, reason, f"must match {NAME_PATTERN}")
    plain = said.replace("`", "").replace("Expected ", "must be ", 1)
    return invalid(path or BODY, reason, plain[:1].lower() + plain[1:])
