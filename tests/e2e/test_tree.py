"""What `gopher tree` shows of a job that a real worker runs."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from gopher.job import JobState
from tests.e2e.farm import Farm, states
from tests.programs import Program, run
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.job import JsonValue

FILE = "tests/e2e/apps/work.py"


async def test_tree_shows_the_tasks_and_the_child_jobs_of_a_running_job(farm: Farm, redis_url: str) -> None:
    """Drawn and as JSON: the handler's nursery, what each task awaits, deadlines left, and the same of the job that it has started."""
    (job_id,) = await farm.submit("branch", str(farm.gate))
    server = Program(
        "gopher.cli.server",
        *("--grpc", "127.0.0.1:0", "--http", "none"),
        environ={**os.environ, "GOPHER_REDIS_URL": redis_url},
    )
    with server:
        address = (await trio.to_thread.run_sync(server.wait_ready))["grpc"]
        environ = {**os.environ, "GOPHER_SERVER": address, "GOPHER_NAMESPACE": farm.namespace}
        worker = await farm.worker()
        found: dict[str, JsonValue] = {}

        async def tree(*options: str) -> str:
            done = await trio.to_thread.run_sync(partial(run, "gopher.cli.main", "tree", job_id, *options, environ=environ))
            assert done.returncode == 0, done.stderr
            return done.stdout

        async def has_grown() -> bool:
            found.clear()
            found.update(json.loads(await tree("--json")))
            children = cast("list[dict[str, JsonValue]]", found["children"])
            return bool(children) and children[0]["task"] is not None

        await until_async(has_grown)
        drawn = await tree()
        os.kill(worker.process.pid, signal.SIGSTOP)
        silent = json.loads(await tree("--json"))
        os.kill(worker.process.pid, signal.SIGCONT)
        farm.open_gate()
        jobs = await farm.finals([job_id])
        ended = json.loads(await tree("--json"))

    task = cast("Mapping[str, JsonValue]", found["task"])
    nurseries = cast("list[dict[str, list[dict[str, JsonValue]]]]", task["nurseries"])
    tasks = [each for nursery in nurseries for each in nursery["tasks"]]
    (child,) = cast("list[dict[str, dict[str, JsonValue]]]", found["children"])
    assert (found["job_id"], found["type"], found["state"], found["note"]) == (job_id, "branch", "processing", None)
    assert task["name"] == "tests.e2e.apps.work.branch"
    assert f"{FILE}:" in str(task["at"])
    assert str(task["at"]).endswith(".leaf")
    assert task["awaits"] == "trio.sleep"
    assert 0 < cast("float", task["deadline_left_seconds"]) <= 600
    assert "left" in [each["name"] for each in tasks]
    assert child["task"]["name"] == "tests.e2e.apps.work.hold"
    assert drawn.startswith(f"branch {job_id} processing on ")
    assert "├─ tests.e2e.apps.work.branch" in drawn
    assert "─ left" in drawn
    assert (silent["task"], silent["note"]) == (None, "its worker did not answer in time")
    assert (ended["task"], ended["note"]) == (None, "it does not run: it is completed")
    assert states(jobs) == {JobState.COMPLETED}
