"""What the stories are played on: `gopher dev` with an example's app, a web app beside it, and what a mail server has received."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING, cast

import pytest

from examples.demo.post_office import PostOffice
from gopher.client import TrioClient
from gopher.job import JobState
from tests.programs import Program, run
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from email.message import EmailMessage
    from pathlib import Path

    import gopher

ADA = "ada@example.com"


@dataclass(frozen=True)
class Stage:
    """A running `gopher dev`.

    Attributes:
        client: Speaks to it.
        environ: What its neighbours are started with.
    """

    client: TrioClient
    environ: dict[str, str]

    def submit(self, job_type: str, payload: dict[str, object]) -> dict[str, object]:
        """Submit a job by the command line, wait for its end, and return it as `--json` shows it."""
        command = ("submit", job_type, "-p", json.dumps(payload), "--wait", "--json")
        ended = run("gopher.cli.main", *command, environ=self.environ)
        assert ended.stdout, ended.stderr
        return cast("dict[str, object]", json.loads(ended.stdout))

    async def completed(self, job_type: str, count: int = 1) -> list[gopher.Job]:
        """Return the jobs of a type once that many are completed."""

        async def are_there() -> bool:
            return len(await self.client.list(type=job_type, state=JobState.COMPLETED)) >= count

        await until_async(are_there, within_seconds=60)
        return list(await self.client.list(type=job_type, state=JobState.COMPLETED))


@asynccontextmanager
async def play(app: str, folder: Path, **settings: str) -> AsyncIterator[Stage]:
    """Run `gopher dev` with an example's app and these environment variables."""
    environ = {**os.environ, **settings}
    arguments = ("--app", app, "--grpc", "127.0.0.1:0", "--http", "none", "--data-dir", str(folder / "redis"))
    with Program("gopher.cli.main", "dev", *arguments, environ=environ) as program:
        address = program.wait_ready()["grpc"]
        async with TrioClient(address) as client:
            yield Stage(client, {**environ, "GOPHER_SERVER": address})
        assert program.stop() == 0, "".join(program.errors)


def call(method: str, url: str, body: object = None) -> tuple[int, dict[str, object]]:
    """Make one HTTP request; return the status and the JSON that came."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def mails(office: PostOffice) -> list[EmailMessage]:
    """Return what a mail server has received, oldest first."""
    return [message_from_bytes(delivery.path.read_bytes(), policy=default) for delivery in office.deliveries()]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[PostOffice]:
    """A mail server on which Ada has a mailbox."""
    with PostOffice(tmp_path / "mail", [ADA]) as office:
        yield office


@pytest.fixture
def smtp(office: PostOffice) -> dict[str, str]:
    """The environment that names the mail server."""
    return {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(office.port)}
