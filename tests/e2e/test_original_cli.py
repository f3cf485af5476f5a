"""The original's lines, pasted as they stand in its README, against a real `gopher dev`; and its JSON, sent by a plain HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import trio

from tests.e2e.apps.original import BLOCKER_VARIABLE
from tests.programs import Program, run
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = """
{
  "type": "email",
  "payload": {
    "to": "user@example.com",
    "subject": "Welcome!",
    "body": "Thank you for signing up."
  },
  "priority": "high",
  "retries": 3
}
"""
PAYLOAD = '{"to": "user@example.com", "subject": "Welcome!"}'


class Shell:
    """Pastes lines; the dependency of its handler is down while `blocker` exists."""

    def __init__(self, addresses: dict[str, str], blocker: Path) -> None:
        self.addresses = addresses
        self.blocker = blocker

    def paste(self, line: str) -> tuple[int, str, str]:
        """Run a line that begins with `gopher` and return its exit code, output and errors."""
        program, *words = shlex.split(line)
        assert program == "gopher"
        ended = run("gopher.cli.main", *words, environ={**os.environ, "GOPHER_SERVER": self.addresses["grpc"]})
        return ended.returncode, ended.stdout.strip(), ended.stderr.strip()

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, object]]:
        """Ask REST as curl does."""
        connection = http.client.HTTPConnection(self.addresses["http"], timeout=30)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found: dict[str, object] = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def state(self, job_id: object) -> object:
        status, job = self.request("GET", f"/api/v1/jobs/{job_id}")
        assert status == 200
        return job["status"]


@pytest.fixture
def shell(redis_program: str, tmp_path: Path) -> Iterator[Shell]:
    """A system that has just been started."""
    blocker = tmp_path / "down"
    arguments = ["--app", "tests.e2e.apps.original:registry", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    arguments += ["--data-dir", str(tmp_path / "data")]
    with Program("gopher.cli.main", "dev", *arguments, environ={**os.environ, BLOCKER_VARIABLE: str(blocker)}) as program:
        yield Shell(program.wait_ready(), blocker)
        assert program.stop() == 0, "".join(program.errors)


async def ended_as(shell: Shell, job_id: object, state: str) -> None:
    async def has_ended() -> bool:
        return await trio.to_thread.run_sync(shell.state, job_id) == state

    await until_async(has_ended)


async def test_lines_of_the_original_do_what_they_say(shell: Shell) -> None:
    """Submit, stats, list-failed, retry, retry-all, health and purge, with the flags and names that the original had."""
    shell.blocker.touch()
    code, job_id, _ = shell.paste(f"gopher submit -t email -p '{PAYLOAD}' --priority high -r 5")
    assert code == 0
    assert re.fullmatch(r"[0-9a-f-]{36}", job_id)
    await ended_as(shell, job_id, "failed")
    status, dead = shell.request("GET", f"/api/v1/jobs/{job_id}")
    stats = shell.paste("gopher stats")
    failed = shell.paste("gopher list-failed")

    shell.blocker.unlink()
    retried = shell.paste(f"gopher retry {job_id}")
    await ended_as(shell, job_id, "completed")
    health = shell.paste("gopher health")

    assert (status, dead["attempt"], dead["priority"]) == (200, 6, "high")
    assert stats[0] == failed[0] == retried[0] == 0
    assert "default" in stats[1]
    assert job_id in failed[1]
    assert "the mail server is down" in failed[1]
    assert health[:2] == (0, "SERVING")


async def test_retry_all_and_purge_of_the_original(shell: Shell) -> None:
    """All dead letters run again; a purge removes what waits, once the queue is named again: with no terminal it never asks."""
    shell.blocker.touch()
    ids = [shell.paste(f"gopher submit -t email -p '{PAYLOAD}' -r 0")[1] for _ in range(2)]
    for job_id in ids:
        await ended_as(shell, job_id, "failed")
    shell.blocker.unlink()

    all_again = shell.paste("gopher retry-all")
    for job_id in ids:
        await ended_as(shell, job_id, "completed")
    shell.paste("gopher pause default")
    shell.paste(f"gopher submit -t email -p '{PAYLOAD}'")
    refused = shell.paste("gopher purge default")
    purged = shell.paste("gopher purge default --confirm default")

    assert all_again[:2] == (0, "requeued 2")
    assert refused[0] != 0
    assert "--confirm default" in refused[2]
    assert purged[:2] == (0, "purged 1")


async def test_json_of_the_seed_is_taken_as_it_stands(shell: Shell) -> None:
    """Submitted by POST, its state is seen by GET at each turn of its life; what is not known is refused by name."""
    shell.paste("gopher pause default")
    created, answer = shell.request("POST", "/api/jobs", SEED)
    waiting = shell.state(answer["job_id"])
    later, scheduled = shell.request("POST", "/api/v1/jobs", '{"type": "email", "delay_seconds": 3600}')
    refused, error = shell.request("POST", "/api/jobs", SEED.replace("retries", "retry_count"))
    shell.paste("gopher resume default")
    await ended_as(shell, answer["job_id"], "completed")
    _, job = shell.request("GET", f"/api/v1/jobs/{answer['job_id']}")

    assert (created, answer["status"], waiting) == (201, "enqueued", "enqueued")
    assert (later, shell.state(scheduled["job_id"])) == (201, "scheduled")
    assert (refused, "retry_count" in json.dumps(error)) == (400, True)
    assert (job["max_attempts"], job["priority"], job["result"]) == (4, "high", {"to": "user@example.com"})
    assert job["attempts"]
    assert job["submit_time"]
    assert job["start_time"]
    assert job["end_time"]
