"""The client commands against a real server."""

from __future__ import annotations

import io
import json
import socket
import time
import uuid
from collections.abc import Callable
from typing import Final

import pytest

from gopher.cli.admin import _remarks
from gopher.cli.main import main
from gopher.cli.stats import _length
from gopher.client.values import StuckAttempt, Worker
from gopher.job import Job, JobState
from gopher.wire.shape import job_object
from tests.waiting import PATIENCE_SECONDS

NO_JOB: Final = "01920000-0000-7000-8000-000000000000"
JOB_KEYS: Final = job_object(Job(id="j", namespace="n", type="t", state=JobState.ENQUEUED, submitted_ms=0)).keys()

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(dev_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns its exit code, output and errors."""
    monkeypatch.setenv("GOPHER_SERVER", dev_address)

    def run_command(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out.strip(), err.strip()

    return run_command


def fresh(word: str) -> str:
    """Return a name that no other test has."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def test_submit_prints_the_id(run: Run) -> None:
    """The id alone, so that a script can keep it; `get` shows the job."""
    code, job_id, err = run("submit", "echo", "-p", '{"a": 1}', "-r", "2", "--label", "k=v", "--delay", "1h")

    _, shown, _ = run("get", job_id)
    fields = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert (code, err, len(job_id)) == (0, "", 36)
    assert (fields["id"], fields["state"], fields["max_attempts"]) == (job_id, "scheduled", "3")
    assert (fields["payload"], fields["labels"]) == ('{"a":1}', '{"k":"v"}')


def test_submit_wait_prints_the_result_alone(run: Run) -> None:
    """The result can be piped on."""
    assert run("submit", "-t", "echo", "-p", '{"n": 9007199254740993}', "--wait") == (0, '{"n":9007199254740993}', "")


def test_submit_reads_the_payload_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` takes what is piped in."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1,2]")))

    assert run("submit", "echo", "-p", "-", "--wait") == (0, "[1,2]", "")


def test_submit_json_is_one_object_of_the_documented_shape(run: Run) -> None:
    """With and without --wait; the payload and the result are decoded."""
    _, submitted, _ = run("submit", "echo", "-p", "[1]", "--delay", "1h", "--json")
    _, finished, _ = run("submit", "echo", "-p", "[1]", "--wait", "--json")

    for text in (submitted, finished):
        assert json.loads(text).keys() == JOB_KEYS
        assert json.loads(text)["payload"] == [1]
    assert json.loads(submitted)["state"] == "scheduled"
    assert (json.loads(finished)["state"], json.loads(finished)["result"]) == ("completed", [1])


def test_submit_wait_of_a_failed_job_exits_8(run: Run) -> None:
    """The failure is told on stderr; with --json the object is printed all the same."""
    code, out, err = run("submit", "fail", "-p", '"broken"', "--wait")
    code_json, out_json, _ = run("submit", "fail", "-p", '"broken"', "--wait", "--json")

    assert (code, out) == (8, "")
    assert "ValueError: broken" in err
    assert code_json == 8
    assert json.loads(out_json)["failure"]["message"].endswith("ValueError: broken")


def test_submit_wait_timeout_exits_6(run: Run) -> None:
    """The job goes on."""
    code, out, err = run("submit", "echo", "--delay", "1h", "--wait-timeout", "200ms")

    assert (code, out) == (6, "")
    assert "it goes on" in err


def test_submit_watch_and_watch_tell_each_change(run: Run) -> None:
    """A line a change, the progress in between, the result at the end; --json has the job in the first and the last."""
    code, out, _ = run("submit", "steps", "--watch")
    job_id = json.loads(run("submit", "steps", "--json")[1])["id"]
    watched = [json.loads(line) for line in run("watch", job_id, "--json")[1].splitlines()]

    lines = out.splitlines()
    assert code == 0
    assert any("25%  a quarter" in line for line in lines)
    assert "completed" in lines[-2]
    assert lines[-1] == '"done"'
    assert watched[0]["job"]["id"] == watched[-1]["job"]["id"] == job_id
    assert watched[-1]["state"] == "completed"


def test_watch_shows_what_the_handler_says(run: Run) -> None:
    """Log lines and output have lines of their own; what follows a cursor is shown alone."""
    code, out, _ = run("submit", "talk", "--watch")
    job_id = json.loads(run("submit", "talk", "--wait", "--json")[1])["id"]
    watched = [json.loads(line) for line in run("watch", job_id, "--json")[1].splitlines()]
    rest = run("watch", job_id, "--cursor", watched[3]["cursor"])

    assert code == 0
    assert [" ".join(line.split()[4:]) for line in out.splitlines()[2:5]] == [
        "warning hello",
        'output {"n":[1,null]}',
        "output 2 bytes",
    ]
    assert watched[2]["log"] == {"level": "warning", "message": "hello"}
    assert watched[3]["output"] == {"content_type": "application/json", "data": {"n": [1, None]}, "data_base64": None}
    assert (rest[0], len(rest[1].splitlines())) == (0, 3)


def test_cancelled_job_exits_9(run: Run) -> None:
    """`cancel` says what became of the job, `watch` of it ends with its own code."""
    job_id = run("submit", "echo", "--delay", "1h")[1]

    cancelled = run("cancel", job_id, "--reason", "not wanted", "--wait")
    again = run("cancel", job_id, "--json", "--actor", "the second")
    watched = run("watch", job_id)

    assert cancelled == (0, "cancelled", "")
    told = json.loads(again[1])
    assert told["cancel_reason"] == "not wanted"
    assert told["cancel_actor"].endswith(f"@{socket.gethostname()}")
    assert watched[0] == 9
    assert "was cancelled: not wanted" in watched[2]


def test_retry_and_delete(run: Run) -> None:
    """A dead letter is listed, given new attempts, and can be removed."""
    job_id = json.loads(run("submit", "fail", "-p", '"broken"', "--wait", "--json")[1])["id"]

    listed = [json.loads(line)["id"] for line in run("list-failed", "--limit", "0", "--json")[1].splitlines()]
    table = run("list-failed", "--limit", "0")[1]
    retried = run("retry", job_id)
    ended = run("watch", job_id)
    deleted = run("delete", job_id)

    assert job_id in listed
    assert job_id in table
    assert "HANDLER_RAISED" in table or "ValueError" in table
    assert retried[0] == 0
    assert retried[1] in {"enqueued", "processing", "failed"}  # the worker may be faster than the answer
    assert ended[0] == 8
    assert deleted[:2] == (0, "deleted")
    assert run("get", job_id)[0] == 3


def test_retry_all_counts_what_it_moved(run: Run) -> None:
    """All dead letters of a type go back; --json says how many."""
    queue = fresh("q")
    for _ in range(2):
        run("submit", "fail", "--wait")

    code, out, _ = run("retry-all", "--type", "fail", "--json")

    assert code == 0
    assert json.loads(out)["requeued"] >= 2
    assert run("retry-all", "--queue", queue)[:2] == (0, "requeued 0")


def test_list_narrows_by_its_options(run: Run) -> None:
    """One object a line with --json, a table without."""
    queue = fresh("q")
    ids = [run("submit", "echo", "-q", queue, "--delay", "1h", "--label", f"n={n}")[1] for n in range(3)]

    everything = [json.loads(line) for line in run("list", "--queue", queue, "--json")[1].splitlines()]
    one = [json.loads(line)["id"] for line in run("list", "--queue", queue, "--label", "n=1", "--json")[1].splitlines()]
    table = run("list", "--queue", queue, "--state", "scheduled", "--limit", "2")[1]

    assert {each["id"] for each in everything} == set(ids)
    assert all(each.keys() == JOB_KEYS for each in everything)
    assert one == [ids[1]]
    assert sum(job_id in table for job_id in ids) == 2


def test_queues_are_paused_resumed_and_purged(run: Run) -> None:
    """A paused queue shows as such; a purge wants its name and says how many it removed."""
    queue = fresh("q")

    paused = run("pause", queue)
    run("submit", "echo", "-q", queue)
    listed = [json.loads(line) for line in run("queues", "--json")[1].splitlines()]
    table = run("queues")[1]
    refused = run("purge", queue)
    purged = run("purge", queue, "--confirm", queue)
    resumed = run("resume", queue, "--json")

    figures = next(each for each in listed if each["name"] == queue)
    assert paused[:2] == (0, "paused")
    assert (figures["paused"], figures["jobs"]["enqueued"]) == (True, 1)
    assert queue in table
    assert refused[0] == 4
    assert purged[:2] == (0, "purged 1")
    assert json.loads(resumed[1])["paused"] is False


def test_figures_are_shown_both_ways(run: Run) -> None:
    """stats, workers, types and health have a form for people and one for scripts."""
    assert "workers 1, slots busy" in run("stats")[1]
    assert json.loads(run("stats", "--json")[1])["worker_count"] == 1
    assert "echo" in run("workers")[1]
    assert json.loads(run("workers", "--json")[1])["slot_count"] == 100
    assert "echo" in run("types")[1].split()
    assert {"type": "echo", "served": True} in [json.loads(line) for line in run("types", "--json")[1].splitlines()]
    assert run("health")[:2] == (0, "SERVING")
    assert json.loads(run("health", "--json")[1]) == {"status": "SERVING"}


def test_stats_show_every_figure_without_a_prometheus(run: Run) -> None:
    """Depth by priority, waits, rates, run times, success and failure, throughput, utilisation, slots, memory, processor, Redis."""
    run("submit", "echo", "--wait")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (figures := json.loads(run("stats", "--json")[1]))["types"] and time.monotonic() < deadline:
        pass

    shown = run("stats")[1]

    (of_type,) = [each for each in figures["types"] if each["type"] == "echo"]
    assert of_type["attempts_total"]["succeeded"] >= 1
    assert 0 < of_type["duration"]["p50_seconds"] <= of_type["duration"]["p95_seconds"] <= of_type["duration"]["p99_seconds"]
    assert figures["waits"][0]["wait"]["count"] >= 1
    assert figures["workers"][0]["resident_bytes"] > 0
    headings = (
        "HIGH",
        "NORMAL",
        "LOW",
        "OLDEST WAIT",
        "WAIT IN LINE",
        "P50",
        "P95",
        "P99",
        "DURATION",
        "SUCCEEDED/S",
        "FAILED/S",
    )
    assert [each for each in headings if each not in shown] == []
    lines = ("attempts ", "leases lost ", "slots busy ", "used ", "MEMORY", "CPU", "redis ")
    assert [each for each in lines if each not in shown] == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0000081, "8.1 us"), (0.00025, "250 us"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (4, "4 s"), (75.2, "75 s")],
)
def test_length_of_time_has_the_unit_that_suits_it(seconds: float, shown: str) -> None:
    """Two digits that count, from microseconds to seconds."""
    assert _length(seconds) == shown


def test_admin_audit_is_clean(run: Run) -> None:
    """Exit 0, with how many jobs were checked."""
    run("submit", "echo", "--wait")

    code, out, err = run("admin", "audit")

    assert (code, err) == (0, "")
    assert "jobs checked, 0 findings" in out
    assert json.loads(run("admin", "audit", "--json")[1].splitlines()[-1])["finding_count"] == 0


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["get", NO_JOB], 3, "does not exist"),
        (["get", "not-an-id"], 2, "ID: "),
        (["submit", "no-such-type"], 4, "no worker has registered the type 'no-such-type'"),
        (["submit", "Bad Type"], 2, "TYPE: "),
        (["submit", "echo", "-p", "{"], 2, "-p: "),
        (["submit", "echo", "--retries", "1000"], 2, "--retries"),
        (["drain", "nobody"], 3, "worker 'nobody' does not live here"),
        (["resume", "no-such-queue"], 3, "no-such-queue"),
        (["list", "--namespace", "A B"], 2, "--namespace: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusal_is_one_line_with_its_code(run: Run, argv: list[str], code: int, said: str) -> None:
    """What the server refuses is told in its words, with the exit code of its kind."""
    found, out, err = run(*argv)

    assert (found, out) == (code, "")
    assert err.count("\n") == 0
    assert said in err


def test_workers_names_what_is_stuck_and_where() -> None:
    """Job, type and line, as far as the worker tells them."""
    worker = Worker(
        id="w", host="h", pid=7, version="1", queues={}, types=(), slot_count=1, busy_slot_count=1, start_ms=0, heartbeat_ms=0,
        draining=True, stuck_job_ids=("j1", "j2", "j3"), utilisation=0, attempts_per_second=0, resident_bytes=0, cpu_cores=0,
        stuck_attempts=(StuckAttempt(job_id="j1", type="email", hangs_at="app.py:7 in work"), StuckAttempt(job_id="j2", type="email", hangs_at="")),
    )  # fmt: skip

    assert _remarks(worker) == ["draining", "stuck:j1(email, app.py:7 in work)", "stuck:j2(email)", "stuck:j3"]


def test_cancel_wait_tells_a_job_that_completed_all_the_same(run: Run) -> None:
    """A script must not take it for one that is cancelled: exit code 4, and the state is said."""
    _, job_id, _ = run("submit", "steps", "-p", '"unmoved"')
    until = time.monotonic() + PATIENCE_SECONDS
    while "processing" not in run("get", job_id)[1] and time.monotonic() < until:
        pass

    code, out, err = run("cancel", job_id, "--wait")

    assert (code, out) == (4, "completed")
    assert "completed already" in err or "already completed" in err


def test_failed_attempt_is_shown_with_its_traceback(run: Run) -> None:
    """By `get` below the fields, by `list-failed --verbose`, and in JSON; `watch` says why beside the state."""
    _, out, _ = run("submit", "fail", "-p", '"broken pipe"', "--watch")
    job_id = json.loads(run("list-failed", "--json", "-t", "fail")[1].splitlines()[-1])["id"]

    shown = run("get", job_id)[1].splitlines()
    listed = run("list-failed", "-t", "fail", "--verbose")[1]
    told = json.loads(run("get", job_id, "--json")[1])["attempts"][0]["traceback"]
    watched = json.loads(run("watch", job_id, "--json")[1].splitlines()[-1])["failure"]

    at = next(number for number, line in enumerate(shown) if line.startswith("attempt 1  raised"))
    assert shown[at].endswith("HANDLER_RAISED: ValueError: broken pipe")
    assert [line.removeprefix("    ") for line in shown[at + 1 :]] == told.splitlines()
    assert "app.py" in told.splitlines()[1]
    assert "raise ValueError(str(payload))" in told
    assert f"{job_id}  fail  default  attempt 1" in listed
    assert "    ValueError: broken pipe" in listed
    assert "HANDLER_RAISED: ValueError: broken pipe" in out
    assert (watched["reason"], watched["message"]) == ("HANDLER_RAISED", "ValueError: broken pipe")


def test_why_says_what_a_job_waits_for_and_what_would_change_it(run: Run) -> None:
    """The same sentence as `get`, `tree`, `watch` and REST's object; of a job that does not wait, that."""
    queue = fresh("nowhere")
    _, job_id, _ = run("submit", "echo", "-q", queue)

    code, said, _ = run("why", job_id)
    told = json.loads(run("why", job_id, "--json")[1])
    reason = told["waiting_reason"]

    assert (code, said) == (0, f"enqueued: {reason['message']}\nto change that: {told['command']}")
    assert (reason["kind"], reason["queue"], reason["type"]) == ("no_worker", queue, "echo")
    assert told["command"] == f"gopher-worker --app MODULE:REGISTRY --queues {queue}"
    assert json.loads(run("get", job_id, "--json")[1])["waiting_reason"] == reason
    assert f"waiting_reason          {reason['message']}" in run("get", job_id)[1]
    assert reason["message"] in run("tree", job_id)[1]
    assert run("submit", "echo", "-q", queue, "--wait-timeout", "0.01")[2].endswith(reason["message"])
    run("cancel", job_id)
    assert run("why", job_id)[1] == "cancelled: it does not wait"
