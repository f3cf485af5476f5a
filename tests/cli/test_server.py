"""`gopher-server` as a process: its start, its refusals to start, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
import redis
import trio
from grpc_health.v1 import health_pb2

from gopher_pb.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc, job_stream_pb2

from gopher.store.store import Store
from gopher.wire.status import from_rpc_error
from tests.programs import Program, run

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

MODULE: Final = "gopher.cli.server"
PATIENCE: Final = 60


def server(url: str, *more: str) -> Program:
    return Program(MODULE, "--redis-url", url, "--grpc", "127.0.0.1:0", "--accept-unknown-types", *more, environ=os.environ)


def submit(address: str, **fields: object) -> str:
    spec = job_pb2.JobSpec(**{"type": "email", **fields})  # type: ignore[arg-type]  # fields of JobSpec
    with grpc.insecure_channel(address) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        return stub.SubmitJob(job_service_pb2.SubmitJobRequest(job=spec), timeout=PATIENCE).job_id


def claim(url: str) -> None:
    """Take the job of the default queue, as a worker would, for an hour."""

    async def take() -> None:
        store = Store(url, client_name="test")
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.lifecycle.claim("default", "default", worker="w", count=1, lease_ms=3_600_000, claim_id="c")
            nursery.cancel_scope.cancel()

    trio.run(take)


def watch_health(channel: grpc.Channel, service: str) -> grpc._CallIterator[health_pb2.HealthCheckResponse]:
    watch: grpc.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return watch(health_pb2.HealthCheckRequest(service=service))


def test_server_says_where_it_serves_and_serves_there(redis_server: RedisServer) -> None:
    """The ready line names both addresses; SIGTERM ends it with exit code 0 and no traceback."""
    with server(redis_server.url, "--http", "127.0.0.1:0") as program:
        addresses = program.wait_ready()
        job_id = submit(addresses["grpc"])
        with urlopen(f"http://{addresses['http']}/readyz", timeout=PATIENCE) as reply:
            body = json.load(reply)
        code = program.stop()

    assert len(job_id) == 36
    assert body == {"status": "ok"}
    assert code == 0
    assert "Traceback" not in "".join(program.errors)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_tells_watchers_of_health_and_of_jobs(redis_server: RedisServer, number: signal.Signals) -> None:
    """A health watcher sees NOT_SERVING, who watches a job or waits for it UNAVAILABLE with its reason; none delays the end."""
    with server(redis_server.url, "--grace", "1h") as program:
        address = program.wait_ready()["grpc"]
        job_id = submit(address)
        with grpc.insecure_channel(address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            health = watch_health(channel, "")
            wait = stub.WaitJob.future(job_service_pb2.WaitJobRequest(job_id=job_id))
            watch = stub.WatchJob(job_stream_pb2.WatchJobRequest(job_id=job_id))
            first = next(health).status, next(watch).event.state
            program.process.send_signal(number)
            statuses = [message.status for message in health]
            with pytest.raises(grpc.RpcError) as caught:
                next(watch)
            given_up = wait.exception(timeout=PATIENCE)
        code = program.wait()

    assert first == (health_pb2.HealthCheckResponse.SERVING, job_pb2.JOB_STATE_ENQUEUED)
    assert statuses == [health_pb2.HealthCheckResponse.NOT_SERVING]
    assert from_rpc_error(caught.value).reason == "SERVER_STOPPING"
    assert isinstance(given_up, grpc.RpcError)
    assert from_rpc_error(given_up).reason == "SERVER_STOPPING"
    assert code == 0


@pytest.mark.parametrize("argv", [["stats"], ["watch", "01920000-0000-7000-8000-000000000000"]], ids=lambda argv: argv[0])
def test_command_tells_soon_that_redis_is_down(redis_server: RedisServer, argv: list[str]) -> None:
    """One line without an address and the code for it, after the server's one wait for Redis, which it logs with the address."""
    with server(redis_server.url) as program:
        address = program.wait_ready()["grpc"]
        redis_server.kill()

        ended = run("gopher.cli.main", *argv, "--server", address, environ=os.environ)
        program.process.kill()
        program.wait()

    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr == "gopher: redis does not serve now; try again (with a request id a submit is safe to repeat)\n"
    assert str(redis_server.socket_path) in "".join(program.errors)


def test_second_signal_cuts_the_grace(redis_server: RedisServer) -> None:
    """A call that would hold the stop for its grace is cancelled by the second signal."""
    with server(redis_server.url, "--grace", "1h") as program:
        address = program.wait_ready()["grpc"]
        job_id = submit(address)
        with grpc.insecure_channel(address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            watch = stub.WatchJob(job_stream_pb2.WatchJobRequest(job_id=job_id))
            next(watch)
            claim(redis_server.url)
            # Of a job that nobody runs any more: its end is not to be seen before the lease ends.
            wait = stub.CancelJob.future(job_service_pb2.CancelJobRequest(job_id=job_id, wait=True))
            ended = threading.Event()
            wait.add_done_callback(lambda _call: ended.set())
            # Answered after the call before it on the same connection was taken on.
            stub.GetJob(job_service_pb2.GetJobRequest(job_id=job_id), timeout=PATIENCE)
            program.process.send_signal(signal.SIGTERM)
            held = not ended.wait(1)
            program.process.send_signal(signal.SIGTERM)
            error = wait.exception(timeout=PATIENCE)
        code = program.wait()

    assert held
    assert isinstance(error, grpc.RpcError)
    assert from_rpc_error(error).reason == "SERVER_STOPPING"
    assert code == 0


def test_wrong_eviction_policy_is_refused_at_the_start(redis_server: RedisServer) -> None:
    """One line that names the policy and the remedy, and an exit code."""
    with redis.Redis.from_url(redis_server.url) as operator:
        operator.config_set("maxmemory", "100mb")
        operator.config_set("maxmemory-policy", "allkeys-lru")

    ended = run(MODULE, "--redis-url", redis_server.url, "--grpc", "127.0.0.1:0", environ=os.environ)

    (line,) = ended.stderr.splitlines()
    assert "maxmemory-policy is allkeys-lru" in line
    assert "noeviction" in line
    assert ended.returncode == 1
    assert ended.stdout == ""


def test_redis_that_is_not_there_is_told_in_one_line() -> None:
    """An exit code and a line, without the password of the URL."""
    url = "redis://:secret@127.0.0.1:1"

    ended = run(MODULE, "--redis-url", url, "--grpc", "127.0.0.1:0", environ=os.environ)

    *_, line = ended.stderr.splitlines()
    assert line.startswith("gopher: redis at 127.0.0.1:1: ")
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 5


@pytest.mark.parametrize("address", [":0", "[]:0"])
def test_address_without_a_host_is_this_machine_alone(redis_server: RedisServer, address: str) -> None:
    """Neither listens on every interface: 127.0.0.2 would reach a server that does."""
    arguments = ["--grpc", address, "--http", address, "--redis-url", redis_server.url]
    with Program("gopher.cli.server", *arguments, environ=os.environ) as program:
        ports = [int(each.rpartition(":")[2]) for each in program.wait_ready().values()]

        for port in ports:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), PATIENCE)
        code = program.stop()

    assert (len(ports), code) == (2, 0)


@pytest.mark.parametrize("flag", ["--grpc", "--http"])
def test_busy_port_is_told_in_one_line(redis_server: RedisServer, flag: str) -> None:
    """An exit code and a line that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = {"--grpc": "--http", "--http": "--grpc"}[flag]

        arguments = [flag, address, other, "127.0.0.1:0"]
        ended = run(MODULE, "--redis-url", redis_server.url, *arguments, environ=os.environ)

    (line,) = ended.stderr.splitlines()
    assert line == f"gopher: cannot listen on {address}: address already in use"
    assert ended.returncode == 1


def test_health_follows_redis(redis_server: RedisServer) -> None:
    """While Redis is gone the server lives and does not serve; when it is back all is well again, without a restart."""
    with server(redis_server.url, "--http", "127.0.0.1:0") as program:
        addresses = program.wait_ready()
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            health = watch_health(channel, "gopher.v1.JobService")
            statuses = [next(health).status]
            redis_server.kill()
            statuses.append(next(health).status)
            with urlopen(f"http://{addresses['http']}/healthz", timeout=PATIENCE) as reply:
                alive = reply.status
            with pytest.raises(HTTPError) as caught:
                urlopen(f"http://{addresses['http']}/readyz", timeout=PATIENCE)
            refused = caught.value
            reason = json.load(refused)["reason"]
            refused.close()
            redis_server.start()
            statuses.append(next(health).status)
            health.cancel()
        submit(addresses["grpc"])
        code = program.stop()

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert statuses == [serving, not_serving, serving]
    assert (alive, refused.code) == (200, 503)
    assert reason.startswith("redis")
    assert code == 0
