"""`gopher dev` as a process: its start, its end, and the end of its children."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from gopher.client import Client
from gopher.edge import reflection
from gopher.errors import JobFailedError, UnknownTypeError
from gopher.job import JobState
from tests.programs import Program, run

if TYPE_CHECKING:
    import subprocess

APP: Final = ("--app", "tests.client.app:registry")
PATIENCE: Final = 60


def arguments(data_dir: Path, *more: str, grpc: str = "127.0.0.1:0", http: str = "none") -> list[str]:
    return ["dev", "--grpc", grpc, "--http", http, "--data-dir", str(data_dir), *more]


def dev(data_dir: Path, *more: str, **addresses: str) -> Program:
    return Program("gopher.cli.main", *arguments(data_dir, *more, **addresses), environ=os.environ)


def children_of(pid: int) -> list[int]:
    """Return all processes below a process."""
    found = [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]
    return found + [each for child in found for each in children_of(child)]


def await_end(pids: list[int], within_seconds: float) -> list[int]:
    """Return which of the processes have not ended in time."""
    poll, left = select.poll(), {}
    for pid in pids:
        try:
            left[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left and (ended := poll.poll(within_seconds * 1000)):
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            os.close(pidfd)
            del left[pidfd]
    for pidfd in left:
        os.close(pidfd)
    return list(left.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_dev_runs_jobs_and_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """It says ready once its worker knows its types, runs jobs, and on a signal exits 0 with no child left."""
    with dev(tmp_path, *APP) as program, Client(program.wait_ready()["grpc"]) as client:
        result = client.result(client.submit("echo", 1), wait=PATIENCE)
        children = children_of(program.process.pid)

        program.process.send_signal(number)
        code = program.wait()

    assert result == 1
    assert len(children) == 2
    assert (code, await_end(children, 0)) == (0, [])


def test_dev_drains_its_worker_first(tmp_path: Path) -> None:
    """What runs beyond the grace is given back unspent, and a next start runs it."""
    with dev(tmp_path, *APP, "--grace", "100ms") as program, Client(program.wait_ready()["grpc"]) as client:
        job_id = client.submit("steps", "endless")
        next(event for event in client.watch(job_id) if event.progress)

        code = program.stop()
    with dev(tmp_path) as program, Client(program.wait_ready()["grpc"]) as client:
        job = client.get(job_id)

    assert code == 0
    assert (job.state, job.attempt, job.attempts) == (JobState.ENQUEUED, 0, ())


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are found through /proc")
def test_dev_killed_takes_its_children_along_and_loses_nothing(tmp_path: Path) -> None:
    """Two seconds after kill -9 no child lives; started again on the same data, the job is there."""
    with dev(tmp_path, *APP) as program, Client(program.wait_ready()["grpc"]) as client:
        job_id = client.submit("echo", 1, delay_seconds=3600)
        children = children_of(program.process.pid)

        program.process.kill()
        left = await_end(children, 2)

    with dev(tmp_path, *APP) as program, Client(program.wait_ready()["grpc"]) as client:
        job = client.get(job_id)

    assert len(children) == 2
    assert left == []
    assert job.state is JobState.SCHEDULED


def test_dev_restarts_a_worker_that_died(tmp_path: Path) -> None:
    """A job that kills its worker fails after its third crash; the server stays, and the next job runs."""
    with dev(tmp_path, *APP, "--lease", "1s") as program, Client(program.wait_ready()["grpc"]) as client:
        with pytest.raises(JobFailedError, match="CRASH_LOOP"):
            client.result(client.submit("crash"), wait=PATIENCE)

        result = client.result(client.submit("echo", 1), wait=PATIENCE)

    assert result == 1


def test_dev_without_an_app_serves_and_keeps(tmp_path: Path) -> None:
    """With no worker a type must have been registered before, unless unknown types are accepted."""
    with dev(tmp_path) as program, Client(program.wait_ready()["grpc"]) as client:
        with pytest.raises(UnknownTypeError):
            client.submit("echo")
        refused_code = program.stop()
    with dev(tmp_path, "--accept-unknown-types") as program, Client(program.wait_ready()["grpc"]) as client:
        state = client.get(client.submit("echo")).state

    assert refused_code == 0
    assert state is JobState.ENQUEUED


def test_dev_uses_the_redis_that_is_named(tmp_path: Path, redis_url: str) -> None:
    """With REDIS_URL it starts none of its own, and makes no data directory."""
    environ = {**os.environ, "REDIS_URL": redis_url}
    program = Program("gopher.cli.main", *arguments(tmp_path / "data"), environ=environ)

    with program:
        program.wait_ready()
        children = children_of(program.process.pid)

    assert children == []
    assert not (tmp_path / "data").exists()


def test_dev_serves_http_beside_grpc(tmp_path: Path) -> None:
    """The ready line has both addresses, with the ports that were picked."""
    with dev(tmp_path, http="127.0.0.1:0") as program:
        addresses = program.wait_ready()

    assert addresses.keys() == {"grpc", "http"}
    assert not any(address.endswith(":0") for address in addresses.values())


def test_dev_serves_reflection(tmp_path: Path) -> None:
    """A tool such as grpcurl finds the services with no flag given; `--no-reflection` turns it off."""
    shown = run("gopher.cli.main", "dev", "--print-config", environ=os.environ).stdout
    with dev(tmp_path) as program, grpc.insecure_channel(program.wait_ready()["grpc"]) as channel:
        ask: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{reflection.V1}/ServerReflectionInfo")
        answer = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()])))
        found = reflection_pb2.ServerReflectionResponse.FromString(answer)
        names = [each.name for each in found.list_services_response.service]

    assert "gopher.v1.JobService" in names
    assert "reflection = true" in shown
    assert "reflection = false" in run("gopher.cli.main", "dev", "--no-reflection", "--print-config", environ=os.environ).stdout


def refused(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    found = run("gopher.cli.main", *command, environ={**os.environ, **variables})
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    return found


def test_dev_refuses_a_data_directory_in_use(tmp_path: Path) -> None:
    """The line names the directory and who holds it."""
    with dev(tmp_path) as program:
        program.wait_ready()

        second = refused(arguments(tmp_path))

    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith(f"gopher: data directory {tmp_path} is in use by process")


@pytest.mark.parametrize("listener", ["grpc", "http"])
def test_dev_refuses_a_busy_port(tmp_path: Path, listener: str) -> None:
    """The line names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        found = refused(arguments(tmp_path, **{listener: address}))

    assert found.returncode == 1
    assert address in found.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("no_such_module:registry", "No module named 'no_such_module'"),
        ("tests.client.app:nothing", "no gopher.Registry called 'nothing'"),
        ("tests.client.app", "--app"),
    ],
)
def test_dev_refuses_an_app_that_does_not_import(tmp_path: Path, app: str, said: str) -> None:
    """It exits 2 with the reason, and does not try again."""
    found = refused(arguments(tmp_path, "--app", app))

    assert found.returncode == 2
    assert said in found.stderr


def test_dev_refuses_a_redis_that_is_not_there(tmp_path: Path) -> None:
    """The line says that Redis cannot be reached."""
    found = refused(arguments(tmp_path), REDIS_URL=f"unix://{tmp_path}/no.sock")

    assert found.returncode == 5
    assert found.stderr.splitlines()[-1].startswith(f"gopher: redis at {tmp_path}/no.sock: ")
