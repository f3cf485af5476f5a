"""One trace through client, server, queue, worker and child job, as a collector sees it; and the lines of log that name it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_grpc

from gopher.client import Client
from gopher.errors import JobFailedError
from tests.programs import ROOT, STOP_SECONDS, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_SECONDS: Final = 30.0
CALLER: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT: Final = f"00-{CALLER}-00f067aa0ba902b7-01"
PROGRAM: Final = """
import sys
from opentelemetry import trace
from gopher.client import Client
from gopher.telemetry import tracing
end = tracing.start("shop")
with Client(sys.argv[1]) as client, trace.get_tracer("shop").start_as_current_span("order"):
    client.result(client.result(client.submit("parent", {"server": sys.argv[1]}), 60), 60)
end()
"""


class Collector(collector_grpc.TraceServiceServicer):
    """An OTLP receiver: keeps the spans, with the service that each came from."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, Span]] = []
        self._changed = threading.Condition()

    def Export(  # noqa: N802 - the name that gRPC calls
        self, request: collector_pb.ExportTraceServiceRequest, context: object
    ) -> collector_pb.ExportTraceServiceResponse:
        with self._changed:
            for each in request.resource_spans:
                (service,) = [value.value.string_value for value in each.resource.attributes if value.key == "service.name"]
                self._spans += [(service, span) for scope in each.scope_spans for span in scope.spans]
            self._changed.notify_all()
        return collector_pb.ExportTraceServiceResponse()

    def wait_for(self, claim: Callable[[list[tuple[str, Span]]], bool]) -> list[tuple[str, Span]]:
        """Return the spans once the claim holds of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: claim(self._spans), PATIENCE_SECONDS), [
                (service, span.name, span.trace_id.hex()) for service, span in self._spans
            ]
            return list(self._spans)


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A receiver on gRPC, and its address."""
    receiver = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    collector_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call] # generated without types
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def environ(collector: tuple[Collector, str]) -> dict[str, str]:
    """What makes a program send its spans there."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector[1],
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


@pytest.fixture(scope="module")
def dev(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, dict[str, str]]]:
    """A `gopher dev` that traces, and its addresses."""
    data: Path = tmp_path_factory.mktemp("data")
    arguments = ["--app", "tests.e2e.apps.traced:registry", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tracing"]
    program = Program("gopher.cli.main", "dev", *arguments, "--log-format", "json", "--data-dir", str(data), environ=environ)
    with program:
        yield program, program.wait_ready()
        assert program.stop() == 0, "".join(program.errors)


def lines_of(program: Program, job_id: str, count: int) -> list[dict[str, object]]:
    """Return the lines of log about a job once there are so many; each is one JSON object."""
    found: list[dict[str, object]] = []
    deadline = threading.Event()
    timer = threading.Timer(PATIENCE_SECONDS, deadline.set)
    timer.start()
    while len(found) < count and not deadline.wait(0.02):
        found = [line for line in map(json.loads, list(program.errors)) if line.get("job_id") == job_id]
    timer.cancel()
    assert len(found) >= count, program.errors
    return found


def test_one_trace_leads_from_client_to_child_job(
    collector: tuple[Collector, str], dev: tuple[Program, dict[str, str]], environ: dict[str, str]
) -> None:
    """The program's span, its call, the submit, the attempt, and the same of the job that the handler submits, have one trace id."""
    address = dev[1]["grpc"]

    subprocess.run([sys.executable, "-c", PROGRAM, address], env=environ, cwd=ROOT, timeout=STOP_SECONDS, check=True)

    def is_whole(spans: list[tuple[str, Span]]) -> bool:
        return {"order", "attempt parent", "attempt child"} <= {span.name for _, span in spans}

    spans = collector[0].wait_for(is_whole)
    (trace_id,) = [span.trace_id for _, span in spans if span.name == "order"]
    ours = [(service, span) for service, span in spans if span.trace_id == trace_id]
    by_id = {span.span_id: span for _, span in ours}

    def way_of(span: Span) -> list[str]:
        """Return the names from the root to the span."""
        parent = by_id.get(span.parent_span_id)
        return [*(way_of(parent) if parent is not None else []), span.name]

    call = "gopher.v1.JobService/SubmitJob"
    child = ["order", call, "submit parent", "attempt parent", call, "submit child", "attempt child"]
    assert child in [way_of(span) for _, span in ours]
    assert {service for service, _ in ours} == {"shop", "gopher-server", "gopher-worker"}


def test_job_that_a_handler_chains_is_of_the_same_trace(
    collector: tuple[Collector, str], dev: tuple[Program, dict[str, str]]
) -> None:
    """What is written with the outcome of an attempt is a child of that attempt's span."""
    program, addresses = dev
    with Client(addresses["grpc"]) as client:
        child_id = str(client.result(client.submit("chained"), 60))
        client.result(child_id, 60)

    (trace_id,) = {str(line["trace_id"]) for line in lines_of(program, child_id, 1)}

    def is_whole(spans: list[tuple[str, Span]]) -> bool:
        names = {span.name for _, span in spans if span.trace_id.hex() == trace_id}
        return {"submit chained", "attempt chained", "attempt child"} <= names

    spans = collector[0].wait_for(is_whole)
    (attempt,) = [span for _, span in spans if span.name == "attempt chained" and span.trace_id.hex() == trace_id]
    (child,) = [span for _, span in spans if span.name == "attempt child" and span.trace_id.hex() == trace_id]
    assert child.parent_span_id == attempt.span_id


def test_job_that_another_process_submits_is_of_the_same_trace(
    collector: tuple[Collector, str], dev: tuple[Program, dict[str, str]]
) -> None:
    """A handler with a process of its own hands its attempt's span on."""
    program, addresses = dev
    with Client(addresses["grpc"]) as client:
        job_id = client.submit("process", {"server": addresses["grpc"]})
        child_id = client.result(job_id, 60)
        client.result(str(child_id), 60)

    (trace_id,) = {str(line["trace_id"]) for line in lines_of(program, job_id, 2)}

    def is_whole(spans: list[tuple[str, Span]]) -> bool:
        return {"attempt process", "attempt child"} <= {span.name for _, span in spans if span.trace_id.hex() == trace_id}

    spans = collector[0].wait_for(is_whole)
    (attempt,) = [span for _, span in spans if span.name == "attempt process" and span.trace_id.hex() == trace_id]
    (submit,) = [span for _, span in spans if span.name == "submit child" and span.trace_id.hex() == trace_id]
    assert submit.parent_span_id == attempt.span_id


def test_rest_continues_the_trace_of_its_caller(collector: tuple[Collector, str], dev: tuple[Program, dict[str, str]]) -> None:
    """`traceparent` of the request is the parent of the submit; the log of the attempt names the trace."""
    program, addresses = dev
    request = urllib.request.Request(
        f"http://{addresses['http']}/api/jobs",
        data=b'{"type": "trio"}',
        headers={"Content-Type": "application/json", "traceparent": TRACEPARENT},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        job_id = json.load(answer)["job_id"]

    def is_whole(spans: list[tuple[str, Span]]) -> bool:
        return {"submit trio", "attempt trio"} <= {span.name for _, span in spans if span.trace_id.hex() == CALLER}

    spans = collector[0].wait_for(is_whole)
    (submit,) = [span for _, span in spans if span.name == "submit trio" and span.trace_id.hex() == CALLER]
    assert submit.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {line["trace_id"] for line in lines_of(program, job_id, 2)} == {CALLER}


@pytest.mark.parametrize("job_type", ["trio", "thread", "asyncio", "process"])
def test_lines_of_a_handler_say_whose_they_are(dev: tuple[Program, dict[str, str]], job_type: str) -> None:
    """Its own and those of libraries, however it runs; and a line end in what it says does not begin a line."""
    program, addresses = dev
    with Client(addresses["grpc"]) as client:
        job_id = client.submit(job_type, {"server": addresses["grpc"]})
        client.result(job_id, 60)

    lines = lines_of(program, job_id, 2)

    assert [line["event"] for line in lines] == ["handler.line", "library first\nsecond\r\x1b[31m"]
    assert lines[0]["said"] == "first\nsecond\r\x1b[31m"
    for line in lines:
        assert (line["type"], line["queue"], line["attempt"]) == (job_type, "default", 1)
        assert len(str(line["trace_id"])) == 32


def test_line_about_a_failed_attempt_names_its_trace(dev: tuple[Program, dict[str, str]]) -> None:
    """As the handler's own lines do."""
    program, addresses = dev
    with Client(addresses["grpc"]) as client:
        job_id = client.submit("raises")
        with pytest.raises(JobFailedError):
            client.result(job_id, 60)

    # Another follows once the outcome is written: that the job has failed.
    line = lines_of(program, job_id, 1)[0]

    assert line["event"] == "attempt.raised"
    assert len(str(line["trace_id"])) == 32
