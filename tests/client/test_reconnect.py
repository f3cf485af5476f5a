"""Clients whose server is killed and started again under the same address."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from gopher.client import Client, Receipt
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
