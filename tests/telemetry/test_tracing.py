"""Spans of a submit and of an attempt, in one trace."""

from __future__ import annotations

import subprocess
import sys
import timeit
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gopher.errors import StartError
from gopher.telemetry import tracing
from tests.programs import ROOT, STOP_SECONDS

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


def test_client_of_a_program_that_does_not_trace_loads_nothing() -> None:
    """Neither the clients nor a handler's module import OpenTelemetry, and a call costs a look."""
    program = (
        "import sys, gopher.client, gopher\n"
        "from gopher.telemetry import tracing\n"
        "with tracing.call_span('/a/B') as traceparent: assert traceparent is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )

    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=STOP_SECONDS, cwd=ROOT
    )

    assert said.stdout == "[]\n"


def test_call_of_a_client_continues_the_program_s_span() -> None:
    """Even where nothing records it here: what the program was handed goes on to the server."""
    with tracing.continued(CALLER), tracing.call_span("/gopher.v1.JobService/SubmitJob") as traceparent:
        pass

    assert tracing.trace_id_of(traceparent) == CALLER.split("-")[1]


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_so_many_of_the_traces_are_recorded(ratio: float, low: int, high: int) -> None:
    """Of those that begin here; a trace that began elsewhere is recorded if its caller records it."""
    tracer = TracerProvider(sampler=tracing._sampler(ratio), shutdown_on_exit=False).get_tracer("test")

    begun = sum(tracer.start_span("own").is_recording() for _ in range(1000))
    with tracing.continued(CALLER):
        is_continued = tracer.start_span("theirs").is_recording()
    with tracing.continued(CALLER[:-1] + "0"):
        is_unwanted = tracer.start_span("theirs").is_recording()

    assert low <= begun <= high
    assert (is_continued, is_unwanted) == (True, False)


def test_environment_may_name_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then OpenTelemetry reads it by itself."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    assert tracing._sampler(1.0) is None


@pytest.mark.parametrize("traceparent", [None, "", "garbage"])
def test_what_is_no_traceparent_has_no_trace_id(traceparent: str | None) -> None:
    """None, and no error."""
    assert tracing.trace_id_of(traceparent) is None


def test_exporter_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nope")

    with pytest.raises(StartError) as caught:
        tracing.start("test")

    assert "opentelemetry-exporter-nope" in caught.value.message
    assert not tracing.is_on()
