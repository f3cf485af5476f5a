"""Handlers that block the loop of a real worker: what is told of them, and what becomes of the jobs that wait behind them."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from gopher.job import JobState
from tests.e2e.farm import Farm, states
from tests.programs import Program, run
from tests.waiting import until, until_async

if TYPE_CHECKING:
    import pytest

LEASE_SECONDS: Final = 3.0
FUNCTION: Final = "tests.e2e.apps.work.stall"


def lines_of(worker: Program, event: str) -> list[dict[str, object]]:
    """Return the lines of log of an event so far."""
    return [line for line in map(json.loads, list(worker.errors)) if line["event"] == event]


async def blocked_seconds(http: str, namespace: str, metric: str = "gopher_loop_blocked_seconds") -> float | None:
    """Return what the server's metrics say of the handler; None while they say nothing."""

    def ask() -> str:
        with urllib.request.urlopen(f"http://{http}/metrics?namespace={namespace}") as answer:
            text: str = answer.read().decode()
            return text

    samples = [
        sample
        for family in text_string_to_metric_families(await trio.to_thread.run_sync(ask))
        for sample in family.samples
        if sample.name == metric and sample.labels["type"] == "stall" and sample.labels["function"] == FUNCTION
    ]
    return samples[0].value if samples else None


async def test_blocked_loop_is_named_while_others_run_what_waits_behind_it(
    farm: Farm, redis_url: str, request: pytest.FixtureRequest
) -> None:
    """Log, metrics and the list of workers name the handler while it blocks; jobs claimed behind it run elsewhere, all of them once."""
    (culprit,) = await farm.submit("stall", str(farm.gate))
    others = await farm.submit("quick", count=9)
    server = Program(
        "gopher.cli.server",
        *("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        environ={**os.environ, "GOPHER_REDIS_URL": redis_url},
    )
    with server:
        addresses = await trio.to_thread.run_sync(server.wait_ready)
        seconds = partial(blocked_seconds, addresses["http"], farm.namespace)
        # Half of the slots a claim: the first takes them all, and whether a second one is sent before the handler blocks is open.
        first = await farm.worker("--concurrency", "20", "--log-format", "json", lease_seconds=LEASE_SECONDS)
        await until(lambda: bool(lines_of(first, "loop.blocked")))
        second = await farm.worker("--concurrency", "4", lease_seconds=LEASE_SECONDS)
        jobs = await farm.finals(others)
        await until(lambda: len(lines_of(first, "loop.blocked")) >= 3)
        environ = {**os.environ, "GOPHER_SERVER": addresses["grpc"], "GOPHER_NAMESPACE": farm.namespace}
        listed = await trio.to_thread.run_sync(partial(run, "gopher.cli.main", "workers", environ=environ))

        async def is_beyond(bound: float) -> bool:
            return (await seconds() or 0.0) > bound

        await until_async(partial(is_beyond, 1.0))
        await until_async(partial(is_beyond, await seconds() or 0.0))
        farm.open_gate()
        (job,) = await farm.finals([culprit])
        await until(lambda: bool(lines_of(first, "attempt.notice")))
        (unblocked,) = lines_of(first, "loop.unblocked")

        async def is_over() -> bool:
            return await seconds() == 0.0

        await until_async(is_over)
        total = await seconds("gopher_worker_loop_blocked_seconds_total")

    told = lines_of(first, "loop.blocked")
    assert {(line["job_id"], line["type"], line["function"]) for line in told} == {(culprit, "stall", FUNCTION)}
    assert "apps/work.py" in str(told[0]["at"])
    assert str(told[0]["at"]).endswith(" spin")
    assert "time.sleep(0.01)" in str(told[0]["stack"])
    assert f"blocked:stall:{culprit}:" in listed.stdout, listed
    assert float(str(unblocked["seconds"])) > float(str(told[-1]["seconds"]))
    assert [line["reason"] for line in lines_of(first, "attempt.notice")] == ["LOOP_BLOCKED"]
    assert total is not None
    assert total > float(str(told[-1]["seconds"])) - 1
    assert sum(int(str(line["jobs"])) for line in lines_of(first, "loop.relieved")) == len(others)
    assert {each.result for each in jobs} == {str(second.process.pid).encode()}
    assert states([job, *jobs]) == {JobState.COMPLETED}
    assert {(each.attempt, each.crashes) for each in [job, *jobs]} == {(1, 0)}
    assert len(farm.events("start", [culprit, *others])) == 10
    assert lines_of(first, "lease.lost") == []
    assert await farm.findings() == []


async def test_worker_that_was_stopped_blames_nobody(farm: Farm) -> None:
    """A process that the system does not let run is not a handler that blocks its loop, however long that lasts."""
    worker = await farm.worker("--log-format", "json")
    ids = await farm.hold(3)
    await farm.started(ids)

    os.kill(worker.process.pid, signal.SIGSTOP)
    await trio.sleep(2.5)  # what is tested is that time passes
    os.kill(worker.process.pid, signal.SIGCONT)
    farm.open_gate()
    await farm.finals(ids)

    assert worker.stop() == 0
    assert lines_of(worker, "loop.blocked") == []
