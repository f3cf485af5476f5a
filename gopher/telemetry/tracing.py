"""Spans: one for each call, each submit and each attempt, joined by the W3C trace context that travels with the job.

Whether a server or a worker traces is decided once, by `start`. Where it does not, which is the default, OpenTelemetry is not
imported here, and each function is a look at a name and a context manager that does nothing. A client traces when the program that
uses it does.

Spans go to the OpenTelemetry provider that is set when `start` is called (by `opentelemetry-instrument`, or by a program that
embeds Gopher); where none is set, `start` sets one up from the standard variables: `OTEL_TRACES_EXPORTER` names an installed
exporter (`otlp`, `console`), `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say who speaks, and where `OTEL_TRACES_SAMPLER` names a
sampler it decides what is recorded.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from gopher.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

TRACEPARENT: Final = "traceparent"
DEFAULT_EXPORTER: Final = "otlp"
_ENTRY_POINTS: Final = {"otlp": ("otlp", "otlp_proto_grpc")}
"""What OpenTelemetry calls OTLP has gRPC for its default, which has a package of its own."""

_untraced: Final[AbstractContextManager[None]] = nullcontext()


class _State:
    """What `start` decides; the provider that it stands for is one a process as well."""

    tracer: trace.Tracer | None = None


def start(service_name: str, ratio: float = 1.0) -> Callable[[], None]:
    """Record spans from now on.

    Args:
        service_name: What the spans are said to come from, unless `OTEL_SERVICE_NAME` says otherwise.
        ratio: Of the traces that begin here, the share that is recorded, 0 to 1, unless `OTEL_TRACES_SAMPLER` says otherwise. Of a
            trace that began elsewhere all or nothing is recorded, as was decided there.

    Returns:
        What hands over the spans not yet exported: call it before the process goes.

    Raises:
        StartError: The exporter asked for is not installed.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        name = os.environ.get("OTEL_SERVICE_NAME") or service_name
        own = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), sampler=_sampler(ratio))
        own.add_span_processor(BatchSpanProcessor(_exporter(os.environ.get("OTEL_TRACES_EXPORTER") or DEFAULT_EXPORTER)))
        trace.set_tracer_provider(own)
        _State.tracer = own.get_tracer("gopher")
        return own.shutdown
    _State.tracer = provider.get_tracer("gopher")
    return lambda: None


def _sampler(ratio: float) -> Sampler | None:
    """Return what decides which traces are recorded; None leaves it to the environment."""
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    return None if os.environ.get("OTEL_TRACES_SAMPLER") else ParentBasedTraceIdRatio(ratio)


def _exporter(name: str) -> SpanExporter:
    for each in _ENTRY_POINTS.get(name, (name,)):
        for entry in entry_points(group="opentelemetry_traces_exporter", name=each):
            exporter: SpanExporter = entry.load()()
            return exporter
    package = "opentelemetry-exporter-otlp-proto-grpc" if name == "otlp" else f"opentelemetry-exporter-{name}"
    raise StartError(
        f"--tracing: no OpenTelemetry exporter {name!r} is installed; install {package}, or name another in OTEL_TRACES_EXPORTER"
    )


def is_on() -> bool:
    """Tell whether this process records spans."""
    return _State.tracer is not None


def continued(traceparent: str) -> AbstractContextManager[None]:
    """Make the caller's span the parent of what the block records."""
    return _continued(traceparent)


@contextmanager
def _continued(traceparent: str) -> Iterator[None]:
    from opentelemetry import context

    token = context.attach(_extracted(traceparent))
    try:
        yield
    finally:
        context.detach(token)


def _extracted(traceparent: str) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent})


def _injected() -> str | None:
    """Return the traceparent of the current span; None where there is none."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACEPARENT)


def call_span(path: str) -> AbstractContextManager[str | None]:
    """Record a call of a client while the block lasts; gives the traceparent to send with it, None when the program does not trace.

    Args:
        path: Of the rpc: `/gopher.v1.JobService/SubmitJob`.
    """
    # A program that traces has imported it; one that does not pays for this look and no more.
    return _call_span(path) if "opentelemetry.trace" in sys.modules else _untraced


@contextmanager
def _call_span(path: str) -> Iterator[str | None]:
    from opentelemetry import trace

    with trace.get_tracer("gopher").start_as_current_span(path.removeprefix("/"), kind=trace.SpanKind.CLIENT):
        yield _injected()


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the id of a trace, 32 hexadecimal digits, from a traceparent; None where it has none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 else None


def submit_span(job_type: str, queue: str, count: int) -> AbstractContextManager[str | None]:
    """Record a submit while the block lasts; gives the traceparent that the jobs are to carry, None when nothing is traced.

    Args:
        job_type: Of the first job.
        queue: Of the first job.
        count: How many jobs.
    """
    tracer = _State.tracer
    return _untraced if tracer is None else _submit_span(tracer, job_type, queue, count)


@contextmanager
def _submit_span(tracer: trace.Tracer, job_type: str, queue: str, count: int) -> Iterator[str | None]:
    from opentelemetry.trace import SpanKind

    attributes: dict[str, str | int] = {"gopher.job.type": job_type, "gopher.queue": queue, "gopher.jobs": count}
    with tracer.start_as_current_span(f"submit {job_type}", kind=SpanKind.PRODUCER, attributes=attributes):
        yield _injected()


def current() -> str | None:
    """Return the traceparent of the span that the caller is in; None outside of any, and when nothing is traced."""
    return None if _State.tracer is None else _injected()


def attempt_span(job_type: str, queue: str, job_id: str, attempt: int, traceparent: str | None) -> AbstractContextManager[None]:
    """Record an attempt while the block lasts, as a child of the submit; what the block raises marks the span as failed."""
    tracer = _State.tracer
    return _untraced if tracer is None else _attempt_span(tracer, job_type, queue, job_id, attempt, traceparent)


@contextmanager
def _attempt_span(
    tracer: trace.Tracer, job_type: str, queue: str, job_id: str, attempt: int, traceparent: str | None
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind

    parent = _extracted(traceparent) if traceparent else None
    attributes: dict[str, str | int] = {
        "gopher.job.type": job_type,
        "gopher.queue": queue,
        "gopher.job.id": job_id,
        "gopher.attempt": attempt,
    }
    with tracer.start_as_current_span(f"attempt {job_type}", context=parent, kind=SpanKind.CONSUMER, attributes=attributes):
        yield
