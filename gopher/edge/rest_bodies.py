"""What REST takes: the query and the body of each request, as declared here, checked, and told of in the OpenAPI document.

A request is decoded into one of these, and whatever does not fit is refused by name. What fits is made into the message that the
same call takes over gRPC; what is checked there alone (sizes in bytes, the words of a label) is refused under the names used here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Meta, Raw, Struct, field

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import job_pb2

from gopher.bulk import BulkKind  # noqa: TC001 - msgspec reads the declarations at run time
from gopher.errors import InvalidRequestError, Violation
from gopher.job import BYTES_CONTENT_TYPE, REASON_PATTERN, JobState, Priority
from gopher.service.admin import MAX_DRAIN_MS, MAX_JOB_IDS
from gopher.service.jobs import DEFAULT_PAGE_SIZE, MAX_BATCH, MAX_GRACE_MS, MAX_PAGE_SIZE
from gopher.submission import MAX_BACKOFF_MS, MAX_BACKOFF_MULTIPLIER, MAX_DELAY_MS, MAX_RETENTION_MS, MAX_TIMEOUT_MS
from gopher.wire.bulk import KIND_NUMBER
from gopher.wire.check import MAX_LABELS, MAX_REASONS, MAX_TEXT_BYTES
from gopher.wire.convert import PRIORITY_NUMBER, STATE_NUMBER

if TYPE_CHECKING:
    from gopher.errors import GopherError

NAME_PATTERN: Final = r"^[a-z][a-z0-9_.-]{0,63}$"
ID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
"""A UUIDv7 in lower case."""
SHORTEST_SECONDS: Final = 0.001
MAX_RETRIES: Final = 99
"""One less than the most attempts."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]
Moment = Annotated[datetime, Meta(tz=True)]
BackoffSeconds = Annotated[float, Meta(ge=SHORTEST_SECONDS, le=MAX_BACKOFF_MS / 1000)]

CRON: Final = "Five fields, as `0 2 * * MON-FRI`, or @hourly, @daily, @weekly, @monthly, @yearly."
TIME_ZONE: Final = "IANA name of the zone in which the expression is read. Null: UTC."

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400
_NANOS: Final = 1_000_000_000
_REST_NAMES: Final = {
    "retry_policy.max_attempts": "retries",
    "retry_policy.initial_backoff": "backoff_initial_seconds",
    "retry_policy.max_backoff": "backoff_max_seconds",
    "retry_policy.backoff_multiplier": "backoff_multiplier",
    "retry_policy.non_retryable_reasons": "non_retryable_reasons",
    "timeout": "timeout_seconds",
    "run_time": "execute_at",
    "delay": "delay_seconds",
    "retention": "retention_seconds",
    "grace": "grace_seconds",
    "jitter": "jitter_seconds",
}
"""Path of a field in the proto -> its name in REST, where they differ."""


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query that every request may have."""

    namespace: Annotated[Name, Meta(description="Where names are unique.")] = "default"


class JobQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a job to show."""

    view: Annotated[
        Literal["basic", "task_tree"], Meta(description="`task_tree`: the job, and what it does at this moment.")
    ] = "basic"


class PageQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of a list."""

    queue: Annotated[Name | None, Meta(description="Only jobs of this queue.")] = None
    type: Annotated[Name | None, Meta(description="Only jobs of this type.")] = None
    page_size: Annotated[
        int, Meta(ge=1, le=MAX_PAGE_SIZE, description="A page may hold fewer jobs, and even none, before the last.")
    ] = DEFAULT_PAGE_SIZE
    page_token: Annotated[str, Meta(description="`next_page_token` of the page before.")] = ""


class JobsQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list."""

    state: Annotated[JobState | None, Meta(description="Only jobs in this state.")] = None
    label: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"pattern": "="})]],
        Meta(max_length=MAX_LABELS, description="KEY=VALUE; repeated: all must match."),
    ] = []


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A request that says all in its path: `{}` or nothing."""


class SeedBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, in the four words of the original."""

    type: Annotated[Name, Meta(description="Which handler.")]
    payload: Annotated[Raw, Meta(description="Any JSON; null if left out.")] = field(default_factory=Raw)
    priority: Priority = Priority.NORMAL
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_RETRIES)] | None,
        Meta(description="Attempts after the first. Null: what the handler declares."),
    ] = None

    def spec(self) -> job_pb2.JobSpec:
        """Return the message."""
        spec = job_pb2.JobSpec(type=self.type, payload=bytes(self.payload), priority=PRIORITY_NUMBER[self.priority])
        if self.retries is not None:
            spec.retry_policy.max_attempts = self.retries + 1
        return spec


class JobOptions(SeedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, but for its queue and for what belongs to one run alone; null or left out: what the handler declares, or the default."""

    payload_base64: Annotated[bytes | None, Meta(description="In place of `payload`: bytes that are no JSON, in base64.")] = (
        None
    )
    labels: Annotated[dict[str, str], Meta(max_length=MAX_LABELS)] = {}
    backoff_initial_seconds: BackoffSeconds | None = None
    backoff_max_seconds: BackoffSeconds | None = None
    backoff_multiplier: Annotated[float, Meta(ge=1, le=MAX_BACKOFF_MULTIPLIER)] | None = None
    non_retryable_reasons: Annotated[
        list[Annotated[str, Meta(pattern=f"^{REASON_PATTERN}$")]],
        Meta(max_length=MAX_REASONS, description="Failures with one of these reasons are not followed by another attempt."),
    ] = []
    timeout_seconds: Annotated[
        Annotated[float, Meta(ge=SHORTEST_SECONDS, le=MAX_TIMEOUT_MS / 1000)] | None,
        Meta(description="Longest run of one attempt; waiting does not count."),
    ] = None
    limit_key: Annotated[Text | None, Meta(description="Whose share of the limits per key it takes, as that of a tenant.")] = (
        None
    )
    retention_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_RETENTION_MS / 1000)] | None,
        Meta(description="How long the job is kept once completed or cancelled. Null: 1 hour."),
    ] = None

    def spec(self) -> job_pb2.JobSpec:
        """Return the message.

        Raises:
            InvalidRequestError: There are two payloads.
        """
        spec = super().spec()
        if self.payload_base64 is not None:
            if spec.payload not in {b"", b"null"}:
                raise misfit("payload_base64", "CONFLICT", "must not be set together with payload")
            spec.payload, spec.content_type = self.payload_base64, BYTES_CONTENT_TYPE
        spec.labels.update(self.labels)
        spec.limit_key = self.limit_key or ""
        self._add_backoff(spec)
        spec.MergeFrom(job_pb2.JobSpec(timeout=duration(self.timeout_seconds), retention=duration(self.retention_seconds)))
        return spec

    def _add_backoff(self, spec: job_pb2.JobSpec) -> None:
        policy = job_pb2.RetryPolicy(
            initial_backoff=duration(self.backoff_initial_seconds),
            max_backoff=duration(self.backoff_max_seconds),
            backoff_multiplier=self.backoff_multiplier or 0,
            non_retryable_reasons=self.non_retryable_reasons,
        )
        if policy.ByteSize():
            spec.retry_policy.MergeFrom(policy)


class JobBody(JobOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job as its submitter describes it. What is null or left out is what the handler declares, or the default."""

    queue: Name = "default"
    execute_at: Annotated[
        Moment | None, Meta(description="Not started before; a moment in the past means now. `run_time` of the job.")
    ] = None
    delay_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_DELAY_MS / 1000)] | None,
        Meta(description="Not started before this long after the submit; excludes `execute_at`."),
    ] = None
    deadline: Annotated[Moment | None, Meta(description="Not started after, and a running attempt is ended then.")] = None
    unique_key: Annotated[Text | None, Meta(description="At most one job that is not final holds it, per queue.")] = None
    request_id: Annotated[Text | None, Meta(description="Makes the submit repeatable for 24 hours, per queue.")] = None

    def spec(self) -> job_pb2.JobSpec:
        """Return the message.

        Raises:
            InvalidRequestError: There are two payloads.
        """
        spec = super().spec()
        spec.queue = self.queue
        spec.unique_key = self.unique_key or ""
        spec.request_id = self.request_id or ""
        times = job_pb2.JobSpec(
            run_time=timestamp(self.execute_at), delay=duration(self.delay_seconds), deadline=timestamp(self.deadline)
        )
        spec.MergeFrom(times)
        return spec


class Recurring(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a job is submitted again and again."""

    cron_expression: Annotated[str, Meta(description=CRON)]
    time_zone: Annotated[Text | None, Meta(description=TIME_ZONE)] = None


class SeedSubmitBody(SeedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job in the four words of the original, now or by the clock."""

    recurring: Annotated[Recurring | None, Meta(description="Makes a schedule in place of a job; it is the answer.")] = None


class SubmitBody(JobBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job with every option, now or by the clock."""

    recurring: Annotated[
        Recurring | None,
        Meta(
            description="Makes a schedule in place of a job; it is the answer. Excludes `execute_at`, `delay_seconds`, `deadline`, "
            "`unique_key` and `request_id`."
        ),
    ] = None


class BatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1,000 jobs, each accepted or refused by itself."""

    jobs: Annotated[list[JobBody], Meta(min_length=1, max_length=MAX_BATCH)]


class UnreadBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch whose jobs are still to be decoded, so that one which does not fit is refused alone."""

    jobs: list[Raw]


class CancelBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to cancel."""

    reason: Annotated[Text, Meta(description="For people.")] = ""
    actor: Annotated[Text, Meta(description="Who asks, for people.")] = ""
    grace_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_GRACE_MS / 1000)] | None,
        Meta(description="How long the handler's cleanup may take. Null: 5 s."),
    ] = None
    wait: Annotated[bool, Meta(description="Answer only when the job is final; 504 if that takes longer than 30 s.")] = False

    def grace(self) -> Duration | None:
        """Return the grace as a message; None if unset."""
        return duration(self.grace_seconds)


class PurgeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What destroys names what it destroys."""

    confirm: Annotated[str, Meta(description="Must repeat the queue's name.")] = ""


class RequeueBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters get new attempts; all that match, or only those named."""

    queue: Name | None = None
    type: Name | None = None
    job_ids: Annotated[list[Annotated[str, Meta(extra_json_schema={"pattern": ID_PATTERN})]], Meta(max_length=MAX_JOB_IDS)] = []


class BulkBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bulk operation does, and to which jobs: those that match all that is given and were submitted before it."""

    kind: BulkKind
    states: Annotated[list[JobState], Meta(description="Empty: of a retry, failed; else all that the kind can act on.")] = []
    queue: Name | None = None
    type: Name | None = None
    labels: Annotated[dict[str, str], Meta(max_length=MAX_LABELS)] = {}
    submitted_before: Annotated[Moment | None, Meta(description="Null: now.")] = None
    reason: Annotated[Text, Meta(description="Of a cancel, for people.")] = ""
    grace_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_GRACE_MS / 1000)] | None,
        Meta(description="Of a cancel: how long a handler's cleanup may take. Null: 5 s."),
    ] = None
    confirm: Annotated[
        str,
        Meta(
            description="What deletes, or cancels all there is, wants the name of the queue, or without one of the namespace."
        ),
    ] = ""

    def request(self, namespace: str) -> admin_pb.StartBulkOperationRequest:
        """Return the message."""
        return admin_pb.StartBulkOperationRequest(
            namespace=namespace,
            kind=KIND_NUMBER[self.kind],
            states=[STATE_NUMBER[state] for state in self.states],
            queue=self.queue or "",
            type=self.type or "",
            labels=self.labels,
            submitted_before=timestamp(self.submitted_before),
            reason=self.reason,
            grace=duration(self.grace_seconds),
            confirm=self.confirm,
        )


class DrainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to drain."""

    grace_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_DRAIN_MS / 1000)] | None,
        Meta(description="How long attempts may go on. Null: as the worker was started with."),
    ] = None

    def grace(self) -> Duration | None:
        """Return the grace as a message; None if unset."""
        return duration(self.grace_seconds)


class PurgeFailedBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters are removed."""

    queue: Name | None = None
    type: Name | None = None
    confirm: Annotated[str, Meta(description="Must repeat the name of the queue, or without one of the namespace.")] = ""


class MisfitError(InvalidRequestError):
    """A request does not fit what is declared here; its fields are named as REST names them."""


def misfit(field: str, reason: str, description: str) -> MisfitError:
    """Return the error for a single field, in the words of REST."""
    return MisfitError(Violation(field, reason, description))


def in_rest_names(error: GopherError) -> GopherError:
    """Return the error with each field named as REST names it; a field stands without the name of the whole that was sent."""
    if isinstance(error, MisfitError) or not isinstance(error, InvalidRequestError):
        return error
    return InvalidRequestError(*(_renamed(each) for each in error.violations))


def _renamed(violation: Violation) -> Violation:
    whole, path = "", violation.field.removeprefix("schedule.")
    head, dot, rest = path.partition(".")
    if dot and head.startswith("job"):
        whole, path = "job." if path != violation.field else "", rest
    text = violation.description.replace("run_time", "execute_at").replace("initial_backoff", "backoff_initial_seconds")
    return Violation(whole + _REST_NAMES.get(path, path), violation.reason, text)


def duration(seconds: float | None) -> Duration | None:
    """Return a length of time as a message; None if unset."""
    if seconds is None:
        return None
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return Duration(seconds=whole, nanos=nanos)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return a moment as a message; None if unset."""
    if moment is None:
        return None
    # Not by way of UTC: near the ends of the calendar a datetime cannot be that.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)
