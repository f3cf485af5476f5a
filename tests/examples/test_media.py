"""`examples.media`: the three handlers, called as a worker calls them."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import gopher
from examples.demo.inputs import make_shop
from examples.demo.post_office import PostOffice
from examples.media import registry
from gopher.errors import PayloadMismatchError
from gopher.handlers import Executor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOB_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Worker:
    """Runs a handler in this thread and keeps what it says of its progress."""

    def __init__(self) -> None:
        self.progress: list[tuple[float, str]] = []

    def run(self, job_type: str, payload: dict[str, object]) -> object:
        spec = registry.get(job_type)
        assert spec is not None
        return spec.function(self.context(job_type), spec.read_payload(json.dumps(payload).encode(), "application/json"))

    def context(self, job_type: str) -> gopher.SyncJobContext:
        context = gopher.SyncJobContext(
            id=JOB_ID,
            type=job_type,
            queue="default",
            namespace="default",
            attempt=1,
            token=1,
            labels={},
            deadline_ms=None,
            is_draining=lambda: False,
        )
        context.say = lambda _, share, message: self.progress.append((float(share), message.decode()))
        return context


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostOffice]:
    with PostOffice(tmp_path / "mail", ["ada@example.com", "slow@example.com"], greylisted=["slow@example.com"]) as office:
        monkeypatch.setenv("SMTP_PORT", str(office.port))
        monkeypatch.delenv("SMTP_HOST", raising=False)
        yield office


def test_registry_knows_the_three_types_and_where_they_run() -> None:
    """Nothing that blocks runs on the worker's loop."""
    executors = {job_type: getattr(registry.get(job_type), "executor", None) for job_type in registry.types}

    assert executors == {"data_export": Executor.THREAD, "email": Executor.THREAD, "image_processing": Executor.PROCESS}


def test_email_delivers_under_an_id_made_from_the_jobs(worker: Worker, office: PostOffice) -> None:
    """The mail server of the environment gets the mail; the result names its id, recipients and server."""
    result = worker.run("email", {"to": "ada@example.com", "subject": "hello"})

    assert result == {
        "message_id": f"<{JOB_ID}@gopher.localhost>",
        "recipients": ["ada@example.com"],
        "server": f"127.0.0.1:{office.port}",
    }
    assert f"<{JOB_ID}@gopher.localhost>".encode() in office.deliveries()[0].path.read_bytes()


def test_email_asks_for_a_retry_when_the_server_says_later(worker: Worker, office: PostOffice) -> None:
    """A 451 is worth another attempt."""
    with pytest.raises(gopher.Retry, match=r"recipient slow@example.com was answered 451 4.7.1 greylisted"):
        worker.run("email", {"to": "slow@example.com", "subject": "hello"})


def test_email_is_discarded_when_the_server_says_never(worker: Worker, office: PostOffice) -> None:
    """A 550 is not worth another attempt; the failure names server, recipient and answer."""
    with pytest.raises(
        gopher.Discard, match=rf"^127.0.0.1:{office.port}: recipient nobody@example.com was answered 550 5.1.1 "
    ):
        worker.run("email", {"to": "nobody@example.com", "subject": "hello"})


def test_email_asks_for_a_retry_when_no_server_listens(worker: Worker) -> None:
    """A mail server that is down is worth another attempt, and is named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(gopher.Retry, match=rf"^127.0.0.1:{port} cannot be reached or broke off: .*refused"):
        worker.run("email", {"to": "ada@example.com", "subject": "hello", "host": "127.0.0.1", "port": port})


def test_image_processing_lists_its_outputs(worker: Worker, tmp_path: Path) -> None:
    """The result names each file with its dimensions and length, and progress reaches 1."""
    source = tmp_path / "photo.png"
    Image.new("RGB", (200, 100), "navy").save(source)

    result = worker.run("image_processing", {"source": str(source), "output_dir": str(tmp_path / "out"), "sizes": [100, 40]})

    expected = [
        {"path": str(path), "width": width, "height": height, "size_bytes": path.stat().st_size}
        for path, width, height in ((tmp_path / "out/photo-100.jpg", 100, 50), (tmp_path / "out/photo-40.jpg", 40, 20))
    ]
    assert result == {"source": str(source), "outputs": expected}
    assert [share for share, _ in worker.progress] == [0.5, 1.0]


def test_data_export_states_rows_and_hash(worker: Worker, tmp_path: Path) -> None:
    """The result has the row count and the SHA-256 of the file."""
    make_shop(tmp_path / "shop.sqlite", orders=1_500)
    output = tmp_path / "orders.csv"

    result = worker.run("data_export", {"database": str(tmp_path / "shop.sqlite"), "table": "orders", "output": str(output)})

    assert isinstance(result, dict)
    assert (result["rows"], result["sha256"]) == (1_500, hashlib.sha256(output.read_bytes()).hexdigest())
    assert worker.progress == [(1_000 / 1_500, "1,000 of 1,500 rows"), (1.0, "1,500 of 1,500 rows")]


@pytest.mark.parametrize(
    ("job_type", "payload"),
    [
        ("image_processing", {"source": "/gone.png", "output_dir": "/gone", "sizes": [10]}),
        ("data_export", {"database": "/gone.sqlite", "table": "orders", "output": "/gone.csv"}),
    ],
)
def test_missing_input_is_discarded(worker: Worker, job_type: str, payload: dict[str, object]) -> None:
    """What is not there is not there at the next attempt either; the failure names it."""
    with pytest.raises(gopher.Discard, match=r"^no such (file|database): /gone"):
        worker.run(job_type, payload)


@pytest.mark.parametrize("job_type", ["email", "image_processing", "data_export"])
def test_payload_that_does_not_fit_is_refused_before_the_handler_runs(worker: Worker, job_type: str) -> None:
    """Each payload has required fields, and the first that is missing is named."""
    with pytest.raises(PayloadMismatchError, match="missing required field"):
        worker.run(job_type, {})
