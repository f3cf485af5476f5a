"""From what a caller hands to `submit` to the message that says it: payloads encoded, moments and lengths of time converted.

What the server would refuse is left to the server, which names the field; refused here is only what no message can carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from gopher_pb.v1 import job_pb2

from gopher.errors import invalid
from gopher.job import BYTES_CONTENT_TYPE, JSON_CONTENT_TYPE, Priority
from gopher.submission import JobOptions, Payload, encode_payload, moment_ms
from gopher.wire import convert


class SubmitOptions(JobOptions, total=False):
    """What `submit` takes besides type and payload: the options of every submit, and `request_id`.

    With a `request_id` the client sends the submit again by itself when nothing answered; without one it cannot know whether that
    would make a second job, and raises.
    """

    request_id: str | None


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
_OF_POLICY: Final = frozenset({"max_attempts", "backoff_multiplier", "initial_backoff", "max_backoff", "non_retryable_reasons"})


def job_spec(job_type: str, payload: Payload, options: Mapping[str, object], *, field: str = "job") -> job_pb2.JobSpec:
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
    spec = job_pb2.JobSpec()
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


def item_spec(item: Mapping[str, object], field: str) -> job_pb2.JobSpec:
    """Return the message that describes an item of `submit_many`.

    Args:
        item: See `JobItem`.
        field: Path of the job in the request, for messages.

    Raises:
        InvalidRequestError: As for `job_spec`.
    """
    options = dict(item)
    job_type = options.pop("type", "")
    return job_spec(cast("str", job_type), options.pop("payload", None), options, field=field)


def _put(spec: job_pb2.JobSpec, name: str, value: object) -> None:
    """Set the field of one option; a value that does not fit it makes Python or protobuf raise."""
    target = _FIELDS.get(name, name)
    message = spec.retry_policy if target in _OF_POLICY else spec
    match value:
        case Mapping():
            spec.labels.update(value)
        case datetime():
            getattr(message, target).CopyFrom(convert.timestamp(moment_ms(value)))
        case float() | int() if name.endswith("_seconds"):
            getattr(message, target).CopyFrom(convert.duration(round(value * 1000)))
        case list() | tuple() if name == "non_retryable_reasons":
            spec.retry_policy.non_retryable_reasons.extend(value)
        case _ if name == "priority":
            spec.priority = convert.PRIORITY_NUMBER[Priority(str(value))]
        case _:
            setattr(message, target, value)
