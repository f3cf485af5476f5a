"""`GET /metrics`, read as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.edge.metrics import Exposition
from gopher.errors import InvalidRequestError, StoreUnavailableError
from gopher.service.stats import Stats
from gopher.store.query import RedisStats
from gopher.telemetry import metrics
from gopher.telemetry.histogram import Durations
from gopher.telemetry.metrics import Metric
from tests.edge.metrics_rig import families, let_everything_happen, samples
from tests.edge.rest_rig import send

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

    from tests.edge.rest_rig import Rest

DECLARED: Final = [each for each in vars(metrics).values() if isinstance(each, Metric)]
ADDED_BY_FORMAT: Final = {"le"}
REDIS: Final = RedisStats(
    version="7.2.0",
    used_memory_bytes=1,
    max_memory_bytes=0,
    maxmemory_policy="noeviction",
    connected_clients=1,
    uptime_seconds=1,
)


def value_of(told: list[Sample], name: str, **labels: str) -> float:
    (value,) = [each.value for each in told if each.name == name and labels.items() <= each.labels.items()]
    return value


async def test_every_declared_metric_is_told_with_its_labels(rest: Rest) -> None:
    """What `telemetry.metrics` declares is what Prometheus sees, no more and no less but the process's own; each has values."""
    await let_everything_happen(rest)
    await rest.call_over_grpc()

    told = await families(rest)

    own = {name: family for name, family in told.items() if not name.startswith("process_")}
    assert set(own) == {each.name.removesuffix("_total") for each in DECLARED}
    for each in DECLARED:
        family = own[each.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (each.kind.value, each.tells)
        assert family.samples, each.name
        for sample in family.samples:
            assert sample.labels.keys() - ADDED_BY_FORMAT == set(each.labels), sample


async def test_figures_are_those_of_the_store(rest: Rest) -> None:
    """Depth by priority and state, totals, attempts, run times, waits, workers and Redis."""
    await let_everything_happen(rest)

    told = await samples(rest)

    of_queue = {"namespace": rest.namespace, "queue": "default"}
    assert value_of(told, "gopher_jobs", state="enqueued", priority="normal", **of_queue) == 1
    assert value_of(told, "gopher_jobs", state="enqueued", priority="high", **of_queue) == 0
    assert value_of(told, "gopher_jobs", state="completed", **of_queue) == 1
    assert value_of(told, "gopher_jobs_submitted_total", **of_queue) == 2
    assert value_of(told, "gopher_jobs_finished_total", state="completed", **of_queue) == 1
    assert value_of(told, "gopher_attempts_total", type="email", outcome="succeeded", **of_queue) == 3
    assert value_of(told, "gopher_attempt_duration_seconds_count", type="email", **of_queue) == 4
    assert value_of(told, "gopher_attempt_duration_seconds_sum", type="email", **of_queue) == pytest.approx(0.9)
    assert value_of(told, "gopher_attempt_duration_seconds_bucket", le="0.25", **of_queue) == 4
    assert value_of(told, "gopher_attempt_duration_seconds_bucket", le="0.125", **of_queue) == 0
    assert value_of(told, "gopher_queue_wait_seconds_count", priority="normal", **of_queue) == 4
    assert value_of(told, "gopher_leases_lost_total", **of_queue) == 2
    assert value_of(told, "gopher_worker_slots", worker="w1") == 10
    assert value_of(told, "gopher_worker_stuck_jobs", worker="w1") == 1
    culprit = {"worker": "w1", "type": "email", "function": "shop.send"}
    former = {"worker": "w1", "type": "report", "function": "shop.report"}
    assert value_of(told, "gopher_loop_blocked_seconds", **culprit) == 1.5
    assert value_of(told, "gopher_loop_blocked_seconds", **former) == 0
    assert value_of(told, "gopher_worker_loop_blocked_seconds_total", **culprit) == 4.25
    assert value_of(told, "gopher_redis_up") == 1
    assert value_of(told, "process_resident_memory_bytes") > 0


async def test_no_label_holds_a_job_id(rest: Rest) -> None:
    """Whatever has happened to the jobs."""
    await let_everything_happen(rest)
    job_id = await rest.submit()
    await rest.get(f"/api/v1/jobs/{job_id}")

    told = await samples(rest)

    assert not [each for each in told if any(job_id in value for value in each.labels.values())]
    assert value_of(told, "gopher_http_request_duration_seconds_count", path="/api/v1/jobs/{job_id}", status="200") == 1


async def test_calls_are_timed_by_method_and_code(rest: Rest) -> None:
    """One that was carried out and one that was refused."""
    await rest.call_over_grpc()
    with pytest.raises(InvalidRequestError):
        await rest.call_over_grpc("Not A Name")

    told = await samples(rest)

    count = "gopher_rpc_duration_seconds_count"
    assert value_of(told, count, method="gopher.v1.JobService/SubmitJob", code="OK") == 1
    assert value_of(told, count, method="gopher.v1.JobService/SubmitJob", code="INVALID_ARGUMENT") == 1
    assert value_of(told, "gopher_store_script_duration_seconds_count", script="submit") == 1


async def test_without_a_namespace_the_default_one_is_told(rest: Rest) -> None:
    """A namespace nobody uses has no queues; what is no namespace, and a parameter that there is not, is refused."""
    unnamed = await send(rest.address, "GET", "/metrics")
    unused = await families(rest, "nobody-here")
    refused = await send(rest.address, "GET", "/metrics?namespace=A%20B")
    unknown = await send(rest.address, "GET", "/metrics?queue=a")

    assert b'gopher_workers{namespace="default"}' in unnamed.body
    assert unnamed.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert unused["gopher_jobs"].samples == []
    assert refused.status == unknown.status == 400


class Reading:
    """A store that counts how often it is read, and may be away."""

    def __init__(self) -> None:
        self.count = 0
        self.is_away = False

    async def __call__(self, namespace: str) -> Stats:
        self.count += 1
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise StoreUnavailableError("away")
        return Stats(namespace=namespace, queues=[], figures=[], workers=[], breakers=[], redis=REDIS)


def exposition_of(reading: Reading) -> Exposition:
    rpcs = Durations()
    rpcs.observe(("gopher.v1.JobService/GetJob", "OK"), 0.01)
    return Exposition(reading, rpcs=rpcs, requests=Durations(), scripts=Durations())


async def test_many_scrapes_cost_redis_one_read_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """However many come at once; and never older figures than that."""
    reading = Reading()
    exposition = exposition_of(reading)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(exposition.text, "default")
    at_once = reading.count
    await trio.sleep(1.1)
    await exposition.text("default")

    assert (at_once, reading.count) == (1, 2)


async def test_without_redis_the_server_still_tells_of_itself(autojump_clock: trio.testing.MockClock) -> None:
    """`gopher_redis_up` is 0, the calls are told, and the figures of Redis are missing rather than old; then they are back."""
    reading = Reading()
    exposition = exposition_of(reading)
    reading.is_away = True

    without = (await exposition.text("default")).decode()
    reading.is_away = False
    await trio.sleep(1.1)
    again = (await exposition.text("default")).decode()

    assert "\ngopher_redis_up 0.0\n" in without
    assert 'gopher_rpc_duration_seconds_count{code="OK",method="gopher.v1.JobService/GetJob"} 1.0' in without
    assert "gopher_redis_used_memory_bytes" not in without
    assert "\ngopher_redis_up 1.0\n" in again
    assert "gopher_redis_used_memory_bytes 1.0" in again


async def test_silent_redis_is_waited_for_only_so_long(autojump_clock: trio.testing.MockClock) -> None:
    """A scrape ends in time for Prometheus even when nothing ever answers."""

    async def read(_namespace: str) -> Stats:
        await trio.sleep_forever()
        raise AssertionError

    exposition = Exposition(read, rpcs=Durations(), requests=Durations(), scripts=Durations())

    with trio.fail_after(5):
        told = await exposition.text("default")

    assert b"gopher_redis_up 0.0" in told
