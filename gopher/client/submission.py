"""From what a caller hands to `submit` to the message that says it: payloads encoded, moments and lengths of time converted.

What the server would refuse is left to the server, which names the field; refused here is only what no message can carry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeAlias, TypedDict

import msgspec

from gopher_pb.v1 import job_service_pb2

from gopher.errors import invalid
from gopher.job import BYTES_CONTENT_TYPE, JSON_CONTENT_TYPE, Priority
from gopher.wire import convert

Payload: TypeAlias = object
"""A JSON value, a dataclass, a TypedDict or a msgspec Struct (all sent as JSON), or bytes."""


class SubmitOptions(TypedDict, total=False):
    """What `submit` takes besides type and payload; left out or None means what the handler declares, or the default.

    `content_type` is `application/json`, for bytes `application/octet-stream`; bytes that are JSON already can be sent as such. A
    `datetime` must have a time zone. With a `request_id` the client sends the submit again by itself when nothing answered; without one
    it cannot know whether that would make a second job, and raises.
    """

    queue: str | None
    priority: str | None
    content_type: str | None
    labels: Mapping[str, str] | None
    max_attempts: int | None
    backoff_initial_seconds: float | None
    backoff_max_seconds: float | None
    backoff_multiplier: float | None
    timeout_seconds: float | None
    delay_seconds: float | None
    run_at: datetime | None
    deadline: datetime | None
    unique_key: str | None
    request_id: str | None
    retention_seconds: float | None


class JobItem(SubmitOptions):
    """An item of `submit_many`; the type is required."""

    type: str
    payload: Payload


_FIELDS: Final = {
    "timeout_seconds": "timeout",
    "delay_seconds": "delay",
    "retention_seconds": "retention",
    "backoff_initial_seconds": "initial_backoff",
    "backoff_max_seconds": "max_backoff",
    "run_at": "run_time",
}
"""Which field an option sets, where the names differ: the message has no units, its types say them."""
_OPTIONS: Final = ("type", "payload", *SubmitOptions.__annotations__)
_OF_POLICY: Final = frozenset({"max_attempts", "backoff_multiplier", "initial_backoff", "max_backoff"})


def job_spec(job_type: str, payload: Payload, options: Mapping[str, object], *, field: str = "job") -> job_service_pb2.JobSpec:
    """Return the message that describes a job.

    Args:
        job_type: Which handler.
        payload: The job's input.
        options: See `SubmitOptions`.
        field: Path of the job in the request, for messages.

    Raises:
        InvalidRequestError: An option is unknown, or its value cannot be put into a message.
    """
    given = {name: value for name, value in options.items() if value is not None}
    spec = job_service_pb2.JobSpec()
    content_type = given.pop("content_type", None)
    spec.payload = encode_payload(payload, field=f"{field}.payload")
    default_type = BYTES_CONTENT_TYPE if isinstance(payload, bytes | bytearray | memoryview) else JSON_CONTENT_TYPE
    for name, value in {"type": job_type, "content_type": content_type or default_type, **given}.items():
        path = f"{field}.{name}"
        if name not in _OPTIONS:
            raise invalid(path, "UNKNOWN_FIELD", f"is not known; expected {', '.join(_OPTIONS)}")
        try:
            _put(spec, name, value)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise invalid(path, "BAD_VALUE", f"{error}, got {value!r}") from error
    return spec


def _put(spec: job_service_pb2.JobSpec, name: str, value: object) -> None:
    """Set the field of one option; a value that does not fit it makes Python or protobuf raise."""
    target = _FIELDS.get(name, name)
    message = spec.retry_policy if target in _OF_POLICY else spec
    match value:
        case Mapping():
            spec.labels.update(value)
        case datetime():
            getattr(message, target).CopyFrom(convert.timestamp(_moment_ms(value)))
        case float() | int() if name.endswith("_seconds"):
            getattr(message, target).CopyFrom(convert.duration(round(value * 1000)))
        case _ if name == "priority":
            spec.priority = convert.PRIORITY_NUMBER[Priority(str(value))]
        case _:
            setattr(message, target, value)


def _moment_ms(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("has no time zone: say datetime(..., tzinfo=UTC) or .astimezone()")
    return round(moment.timestamp() * 1000)


def encode_payload(payload: Payload, *, field: str = "payload") -> bytes:
    """Return the bytes of a payload.

    Raises:
        InvalidRequestError: It is neither bytes nor can it be written as JSON.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    try:
        data = msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(field, "BAD_JSON", f"cannot be written as JSON: {error}") from error
    # msgspec writes numbers that JSON does not have as null; only a text with a null in it can hold one.
    if b"null" in data and _has_no_number(msgspec.to_builtins(payload)):
        raise invalid(field, "BAD_JSON", "holds NaN or an infinity, which JSON cannot say")
    return data


def _has_no_number(value: object) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case dict():
            return any(map(_has_no_number, value.values()))
        case list() | tuple():
            return any(map(_has_no_number, value))
        case _:
            return False
