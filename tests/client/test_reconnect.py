"""Clients whose server is killed and started again under the same address."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from gopher.cli.main import main
from gopher.client import Client, Receipt, calls, dialogues
from gopher.errors import StoreUnavailableError
from gopher.job import JobState
from tests.client.faces import FACES, Face
from tests.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.client import JobEvent, JobItem
    from gopher.client.submit_stream import Answer
    from gopher.nursery import ChildJob, JobNursery

PATIENCE = 60


class RestartableServer:
    """A server that can be killed and started again; after the first start it keeps its port."""

    def __init__(self, redis_url: str) -> None:
        self.address = "127.0.0.1:0"
        self._redis_url = redis_url
        self._program: Program | None = None

    def start(self) -> None:
        arguments = ["--grpc", self.address, "--redis-url", self._redis_url, "--accept-unknown-types"]
        self._program = Program("gopher.cli.server", *arguments, environ=os.environ)
        self.address = self._program.wait_ready()["grpc"]

    def kill(self) -> None:
        assert self._program is not None
        self._program.process.kill()
        self._program.wait()
        self._program = None

    def end(self) -> None:
        if self._program is not None:
            self.kill()


@pytest.fixture
def server(redis_url: str) -> Iterator[RestartableServer]:
    server = RestartableServer(redis_url)
    server.start()
    yield server
    server.end()


@pytest.fixture(params=FACES)
def client(request: pytest.FixtureRequest, server: RestartableServer, namespace: str) -> Iterator[Face]:
    face = FACES[request.param](server.address)
    face.client.namespace = namespace  # type: ignore[attr-defined]  # each face has its client
    yield face
    face.close()


def test_watch_finds_the_server_again_and_misses_nothing(server: RestartableServer, client: Face, namespace: str) -> None:
    """While the server is away the watch goes on; what happened meanwhile is its next event, and nothing comes twice."""
    job_id = str(client.submit("echo", delay_seconds=3600))
    restarted: list[threading.Thread] = []

    def restart_and_cancel() -> None:
        server.kill()
        server.start()
        with Client(server.address, namespace=namespace) as other:
            other.cancel(job_id, reason="meanwhile")

    def restart_once(_: JobEvent) -> None:
        if not restarted:
            restarted.append(threading.Thread(target=restart_and_cancel))
            restarted[0].start()

    events = client.watch(job_id, restart_once)
    restarted[0].join(PATIENCE)

    assert [event.state for event in events] == [JobState.SCHEDULED, JobState.CANCELLED]
    assert events[-1].job is not None
    assert events[-1].job.cancel_reason == "meanwhile"


def test_wait_finds_the_server_again(server: RestartableServer, client: Face, namespace: str) -> None:
    """A wait that has time left survives the restart of the server it waits on."""
    job_id = str(client.submit("echo", delay_seconds=3600))

    def restart_and_cancel() -> None:
        server.kill()
        server.start()
        with Client(server.address, namespace=namespace) as other:
            other.cancel(job_id)

    restart = threading.Thread(target=restart_and_cancel)
    restart.start()
    job = client.wait(job_id, PATIENCE)
    restart.join(PATIENCE)

    assert job.state is JobState.CANCELLED  # type: ignore[attr-defined]  # a Job


class ImpatientProxy:
    """Carries bytes to a server, and ends each connection on which a wait is made, three times, as one that ends what is idle for minutes does.

    It keeps the clients' clock: whenever it ends a connection a minute and 40 seconds have passed.
    """

    def __init__(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self.cuts = 0
        self.enough = threading.Event()
        self._is_waited_on = False
        self._passed_seconds = 0.0
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        for function in (dialogues.ask, dialogues.wait):
            monkeypatch.setattr(function, "__defaults__", (lambda: time.monotonic() + self._passed_seconds,))
        wait, look = calls.wait, calls.get
        monkeypatch.setattr(calls, "wait", lambda *args: self._see_wait() and wait(*args))
        monkeypatch.setattr(calls, "get", lambda *args: self._see_look() and look(*args))

    def _see_wait(self) -> bool:
        self._is_waited_on = self.cuts < 3
        if not self._is_waited_on:
            self.enough.set()
        return True

    def _see_look(self) -> bool:
        self.cuts += self._is_waited_on
        self._is_waited_on = False
        return True

    def close(self) -> None:
        for each in self._sockets:
            _end(each)
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in self._sockets:
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                for ends in ((client, server, True), (server, client, False)):
                    self._threads.append(threading.Thread(target=self._carry, args=ends))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, target: socket.socket, is_client: bool) -> None:
        with suppress(OSError):  # the other side has ended it
            while chunk := source.recv(65_536):
                if is_client and self._is_waited_on:
                    self._passed_seconds += 100
                    break
                target.sendall(chunk)
        for each in (source, target):
            _end(each)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended
        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(server: RestartableServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImpatientProxy]:
    proxy = ImpatientProxy(server.address, monkeypatch)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("kind", FACES)
def test_wait_goes_on_behind_a_proxy_that_ends_idle_connections(
    server: RestartableServer, proxy: ImpatientProxy, namespace: str, kind: str
) -> None:
    """However often it is cut, and however long it has lasted then, it returns the job at its end."""
    face = FACES[kind](proxy.address)
    face.client.namespace = namespace  # type: ignore[attr-defined]  # each face has its client
    with Client(server.address, namespace=namespace) as other:
        job_id = other.submit("echo", delay_seconds=3600)
        end = threading.Thread(target=lambda: (proxy.enough.wait(PATIENCE), other.cancel(job_id)))
        end.start()

        job = face.wait(job_id)
        end.join(PATIENCE)
        face.close()

    assert job.state is JobState.CANCELLED  # type: ignore[attr-defined]  # a Job
    assert proxy.cuts == 3


def test_command_waits_behind_a_proxy_that_ends_idle_connections(
    server: RestartableServer, proxy: ImpatientProxy, namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """`submit --wait` ends with its job, and nothing of gRPC's own is seen meanwhile."""
    with Client(server.address, namespace=namespace) as other:
        end = threading.Thread(
            target=lambda: (proxy.enough.wait(PATIENCE), [other.cancel(job.id, reason="enough") for job in other.list()])
        )
        end.start()

        code = main(["submit", "echo", "--delay", "1h", "--wait", "--namespace", namespace, "--server", proxy.address])
        end.join(PATIENCE)

    out, err = capfd.readouterr()
    assert (code, out) == (9, "")
    assert len(err.splitlines()) == 1
    assert err.endswith("was cancelled: enough\n")
    assert proxy.cuts == 3


def test_submit_while_the_server_restarts_is_one_job(server: RestartableServer, client: Face) -> None:
    """Submits that find no server, or whose answer was lost, are sent again and make one job each."""
    ids: list[str] = []

    def restart() -> None:
        server.kill()
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    while restarting.is_alive() or len(ids) < 20:
        try:
            ids.append(str(client.submit("echo", len(ids), delay_seconds=3600, request_id=f"r{len(ids)}")))
        except StoreUnavailableError:
            continue  # away for longer than a submit is patient: its caller tries again
    restarting.join(PATIENCE)
    listed = client.list(limit=None)

    assert sorted(job.id for job in listed) == sorted(ids)  # type: ignore[attr-defined]  # a list of Job


def test_submit_stream_goes_on_after_a_restart(server: RestartableServer, client: Face) -> None:
    """A stream whose items have request ids goes on where it was cut: an answer an item, in order, and one job each."""
    count, seen = 1500, 0

    def restart_once(_: Answer) -> None:
        nonlocal seen
        seen += 1
        if seen == 300:
            server.kill()
            server.start()

    items: Iterator[JobItem] = (
        {"type": "echo", "payload": number, "delay_seconds": 3600, "request_id": f"r{number}"} for number in range(count)
    )
    answers = client.submit_stream(items, restart_once)
    payload_of = {job.id: job.payload for job in client.list(limit=None)}  # type: ignore[attr-defined]  # a list of Job

    assert len(payload_of) == count
    ids = [answer.job_id for answer in answers if isinstance(answer, Receipt)]
    assert [payload_of[each] for each in ids] == [str(number).encode() for number in range(count)]


def test_submit_stream_without_request_ids_ends_with_the_cut(server: RestartableServer, client: Face) -> None:
    """Where a repeat could make a second job the stream ends, and the caller has the answers that came before."""
    answers: list[Answer] = []

    def kill(answer: Answer) -> None:
        answers.append(answer)
        if len(answers) == 300:
            server.kill()

    items: Iterator[JobItem] = ({"type": "echo", "payload": number, "delay_seconds": 3600} for number in range(5000))
    with pytest.raises(StoreUnavailableError):
        client.submit_stream(items, kill)

    assert 300 <= len(answers) < 5000


def test_nursery_goes_on_after_a_restart(server: RestartableServer, client: Face) -> None:
    """Its children are told of again, others follow, and each is one job; all of it within the grace."""
    children: list[ChildJob] = []

    async def body(nursery: JobNursery) -> None:
        children.extend([await nursery.start("echo", number, delay_seconds=3600) for number in range(3)])
        server.kill()
        children.extend(nursery.start_soon("echo", number, delay_seconds=3600) for number in range(3))
        server.start()
        children.append(await nursery.start("echo", 7, delay_seconds=3600))
        nursery.cancel()

    client.in_nursery(body, grace=60.0)
    listed = client.list(limit=None)

    assert len({child.id for child in children}) == 7
    assert {child.state for child in children} == {JobState.CANCELLED}
    assert sorted(job.id for job in listed) == sorted(str(child.id) for child in children)  # type: ignore[attr-defined]  # a list of Job
