"""Spans: one for each submit and one for each attempt, joined by the W3C trace context that travels with the job.

Whether this process traces is decided once, by `start`. Where it does not, which is the default, each function here is a look at a
name and a context manager that does nothing.

Spans go to the OpenTelemetry provider that is set when `start` is called (by `opentelemetry-instrument`, or by a program that
embeds Gopher); where none is set, `start` sets one up from the standard variables: `OTEL_TRACES_EXPORTER` names an installed
exporter (`otlp`, `console`), `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say who speaks.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gopher.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace.export import SpanExporter

TRACEPARENT: Final = "traceparent"
DEFAULT_EXPORTER: Final = "otlp"

_propagator: Final = TraceContextTextMapPropagator()
_untraced: Final[AbstractContextManager[None]] = nullcontext()


class _State:
    """What `start` decides; the provider that it stands for is one a process as well."""

    tracer: trace.Tracer | None = None


def start(service_name: str) -> Callable[[], None]:
    """Record spans from now on.

    Args:
        service_name: What the spans are said to come from, unless `OTEL_SERVICE_NAME` says otherwise.

    Returns:
        What hands over the spans not yet exported: call it before the process goes.

    Raises:
        StartError: The exporter asked for is not installed.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        name = os.environ.get("OTEL_SERVICE_NAME") or service_name
        own = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        own.add_span_processor(BatchSpanProcessor(_exporter(os.environ.get("OTEL_TRACES_EXPORTER") or DEFAULT_EXPORTER)))
        trace.set_tracer_provider(own)
        _State.tracer = own.get_tracer("gopher")
        return own.shutdown
    _State.tracer = provider.get_tracer("gopher")
    return lambda: None


def _exporter(name: str) -> SpanExporter:
    for entry in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: SpanExporter = entry.load()()
        return exporter
    raise StartError(
        f"--tracing: no OpenTelemetry exporter {name!r} is installed; install opentelemetry-exporter-{name}, or name another in "
        "OTEL_TRACES_EXPORTER"
    )


def is_on() -> bool:
    """Tell whether this process records spans."""
    return _State.tracer is not None


def continued(traceparent: str) -> AbstractContextManager[None]:
    """Make the caller's span the parent of what the block records."""
    return _continued(traceparent)


@contextmanager
def _continued(traceparent: str) -> Iterator[None]:
    token = otel_context.attach(_propagator.extract({TRACEPARENT: traceparent}))
    try:
        yield
    finally:
        otel_context.detach(token)


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
def _submit_span(tracer: trace.Tracer, job_type: str, queue: str, count: int) -> Iterator[str]:
    attributes: dict[str, str | int] = {"gopher.job.type": job_type, "gopher.queue": queue, "gopher.jobs": count}
    with tracer.start_as_current_span(f"submit {job_type}", kind=trace.SpanKind.PRODUCER, attributes=attributes):
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        yield carrier[TRACEPARENT]


def current() -> str | None:
    """Return the traceparent of the span that the caller is in; None outside of any, and when nothing is traced."""
    if _State.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(TRACEPARENT)


def attempt_span(job_type: str, queue: str, job_id: str, attempt: int, traceparent: str | None) -> AbstractContextManager[None]:
    """Record an attempt while the block lasts, as a child of the submit; what the block raises marks the span as failed."""
    tracer = _State.tracer
    return _untraced if tracer is None else _attempt_span(tracer, job_type, queue, job_id, attempt, traceparent)


@contextmanager
def _attempt_span(
    tracer: trace.Tracer, job_type: str, queue: str, job_id: str, attempt: int, traceparent: str | None
) -> Iterator[None]:
    parent = _propagator.extract({TRACEPARENT: traceparent}) if traceparent else None
    attributes: dict[str, str | int] = {
        "gopher.job.type": job_type,
        "gopher.queue": queue,
        "gopher.job.id": job_id,
        "gopher.attempt": attempt,
    }
    with tracer.start_as_current_span(
        f"attempt {job_type}", context=parent, kind=trace.SpanKind.CONSUMER, attributes=attributes
    ):
        yield
