"""Bytes and query strings become the declared requests, or a refusal that names the field and says what it must be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar, get_args

import msgspec

from gopher.breaker import Forced
from gopher.bulk import BulkKind
from gopher.edge.rest_bodies import NAME_PATTERN, MisfitError, UnreadBatch, misfit
from gopher.job import NAME_EXAMPLE, REASON_EXAMPLE, JobState, Priority
from gopher.limits import PERIOD_NAMES
from gopher.schedule import CatchUpPolicy, OverlapPolicy
from gopher.wire import check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    "overlap": tuple(OverlapPolicy),
    "view": ("basic", "task_tree"),
    "catch_up": tuple(CatchUpPolicy),
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
        MisfitError: It is not JSON, or not what is declared.
    """
    try:
        decoded = msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(kind, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = check.json_fault(body) or "it cannot be decoded"
        raise misfit(BODY, "BAD_JSON", f"must be JSON: {fault}") from None
    # The jobs of a batch are looked at one by one.
    repetition = check.repetition_fault(body, is_shallow=kind is UnreadBatch) if body else None
    if repetition is not None:
        raise misfit(BODY, "BAD_JSON", f"must be JSON: {repetition}")
    return decoded


def decode_query(kind: type[StructT], items: Iterable[tuple[str, str]]) -> StructT:
    """Return the request that a query string holds.

    Raises:
        MisfitError: It is not what is declared.
    """
    lists = {each.encode_name for each in msgspec.structs.fields(kind) if each.default_factory is list}
    found: dict[str, str | list[str]] = {}
    for name, value in items:
        before = found.get(name)
        if isinstance(before, list):
            before.append(value)
        elif before is not None:
            raise misfit(name[:_SHOWN], "REPEATED", "must be given once")
        else:
            found[name] = [value] if name in lists else value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(kind, str(error)) from None


def _refusal(kind: type[msgspec.Struct], text: str) -> MisfitError:
    """Return the refusal for what msgspec says does not fit."""
    placed = _PLACED.fullmatch(text)
    said, path = (placed["said"], placed["path"] or "") if placed else (text, "")
    named = _NAMED.fullmatch(said)
    if named:
        field = f"{path}.{named['name'][:_SHOWN]}".lstrip(".")
        if named["what"] == "missing required":
            return misfit(field, "REQUIRED", "must be set")
        known = ", ".join(each.encode_name for each in msgspec.structs.fields(_part(kind, path))) or "nothing"
        return misfit(field, "UNKNOWN_FIELD", f"is not known here; known: {known}")
    reason = next((reason for mark, reason in _REASONS.items() if mark in said), "BAD_TYPE")
    if reason == "BAD_ENUM" and (name := path.rpartition(".")[2].partition("[")[0]) in _WORDS:
        return misfit(path, reason, f"must be one of {', '.join(_WORDS[name])}")
    if reason == "BAD_TIME":
        return misfit(path, reason, "must be a moment with its zone, such as 2030-01-31T12:00:00Z")
    if reason == "BAD_NAME":
        pattern = said.partition("'")[2].rpartition("'")[0]
        example = NAME_EXAMPLE if pattern == NAME_PATTERN else REASON_EXAMPLE
        return misfit(path, reason, f"must match {pattern}, as {example} does")
    plain = said.replace("`", "").replace("Expected ", "must be ", 1)
    return misfit(path or BODY, reason, plain[:1].lower() + plain[1:])


def _part(kind: type[msgspec.Struct], path: str) -> type[msgspec.Struct]:
    """Return what declares the object at a path, as `job` or `jobs[0]`."""
    for name in re.findall(r"[a-z_]+", path):
        declared = next((each.type for each in msgspec.structs.fields(kind) if each.encode_name == name), None)
        kind = next((each for each in _types_in(declared) if isinstance(each, type) and issubclass(each, msgspec.Struct)), kind)
    return kind


def _types_in(declared: object) -> Iterator[object]:
    yield declared
    for each in get_args(declared):
        yield from _types_in(each)
