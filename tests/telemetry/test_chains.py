"""One trace from a job to the last of those that come of it, whatever its handlers run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import gopher
import gopher.testing
from gopher.job import JobState
from gopher.telemetry import tracing

if TYPE_CHECKING:
    import pytest

NEXT: Final = {"on-trio": "in-thread", "in-thread": "on-asyncio", "on-asyncio": "in-process", "in-process": "last"}

registry = gopher.Registry()


async def submit_next(job: gopher.JobContext, payload: object) -> None:
    """Submit the next of the chain."""
    await job.submit(NEXT[job.type])


def submit_next_plainly(job: gopher.SyncJobContext, payload: object) -> None:
    """Do the same in a plain function."""
    job.submit(NEXT[job.type])


registry.handler("on-trio")(submit_next)
registry.handler("in-thread")(submit_next_plainly)
registry.handler("on-asyncio", asyncio=True)(submit_next)
registry.handler("in-process", process=True)(submit_next_plainly)


@registry.handler("last")
async def last(job: gopher.JobContext, payload: object) -> None:
    """End the chain."""


async def test_one_trace_spans_a_chain_of_jobs(redis_program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The span of each attempt is the child of the attempt that has submitted its job."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing._State, "tracer", provider.get_tracer("test"))

    async with gopher.testing.open_runtime("tests.telemetry.test_chains:registry") as runtime:
        await runtime.submit("on-trio")
        jobs = await runtime.drain()

    assert [(job.type, job.state) for job in jobs.values()] == [(each, JobState.COMPLETED) for each in [*NEXT, "last"]]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    for earlier, later in NEXT.items():
        parent = spans[f"attempt {later}"].parent
        assert parent is not None
        assert parent.span_id == spans[f"attempt {earlier}"].context.span_id
