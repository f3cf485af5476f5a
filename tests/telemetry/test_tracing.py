"""Spans of a submit and of an attempt, in one trace."""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gopher.errors import StartError
from gopher.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of the test end up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing._State, "tracer", provider.get_tracer("test"))
    return exporter


def by_kind(exporter: InMemorySpanExporter) -> dict[SpanKind, ReadableSpan]:
    return {span.kind: span for span in exporter.get_finished_spans()}


def test_attempt_is_a_child_of_its_submit(spans: InMemorySpanExporter) -> None:
    """The context that the job carries joins the two, and the caller's span is the parent of both."""
    with tracing.continued(CALLER), tracing.submit_span("email", "default", 1) as traceparent:
        pass
    with tracing.attempt_span("email", "default", "j1", 2, traceparent):
        pass

    found = by_kind(spans)
    submit, attempt = found[SpanKind.PRODUCER], found[SpanKind.CONSUMER]
    assert submit.name == "submit email"
    assert attempt.name == "attempt email"
    assert submit.context.trace_id == attempt.context.trace_id == int(CALLER.split("-")[1], 16)
    assert submit.parent is not None
    assert submit.parent.span_id == int(CALLER.split("-")[2], 16)
    assert attempt.parent is not None
    assert attempt.parent.span_id == submit.context.span_id
    assert attempt.attributes is not None
    assert (attempt.attributes["gopher.job.id"], attempt.attributes["gopher.attempt"]) == ("j1", 2)


def test_attempt_that_raises_is_a_failed_span(spans: InMemorySpanExporter) -> None:
    """The error goes on, and the span tells of it."""
    with pytest.raises(ZeroDivisionError), tracing.attempt_span("email", "default", "j1", 1, None):
        raise ZeroDivisionError

    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.parent is None


def test_malformed_context_of_a_caller_is_ignored(spans: InMemorySpanExporter) -> None:
    """A trace of our own begins where the caller's makes no sense."""
    with tracing.continued("garbage\n"), tracing.submit_span("email", "default", 1):
        pass

    (span,) = spans.get_finished_spans()
    assert span.parent is None


def test_nothing_is_traced_unless_started() -> None:
    """Off is the default: no context for the job, nothing recorded."""
    with tracing.submit_span("email", "default", 1) as traceparent:
        pass

    assert not tracing.is_on()
    assert traceparent is None


def test_off_costs_nothing_measurable() -> None:
    """Both spans together take less than 5 us when nothing is traced, so a thousandth of a job at 200 jobs/s."""

    def once() -> None:
        with tracing.submit_span("email", "default", 1):
            pass
        with tracing.attempt_span("email", "default", "j1", 1, None):
            pass

    best_seconds = min(timeit.repeat(once, number=1000, repeat=20)) / 1000

    assert best_seconds < 5e-6


def test_exporter_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nope")

    with pytest.raises(StartError) as caught:
        tracing.start("test")

    assert "opentelemetry-exporter-nope" in caught.value.message
    assert not tracing.is_on()
