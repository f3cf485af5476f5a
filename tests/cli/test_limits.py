"""The commands about what holds jobs back, against a real server and a real worker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest

from gopher.cli.main import main

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


@pytest.fixture
def queue() -> str:
    """A queue that nobody has used."""
    return f"q-{uuid.uuid4().hex[:12]}"


def test_rate_limit_is_set_shown_and_removed(run: Run, queue: str) -> None:
    """With no limit given the command shows what holds."""
    told = run("rate-limit", "echo", "-q", queue, "--limit", "100", "--burst", "20", "--per", "m", "--concurrency", "7")
    shown = run("rate-limit", "echo", "-q", queue)
    removed = run("rate-limit", "echo", "-q", queue, "--remove")

    assert told == (0, "100/m with a burst of 20, 7 at once", "")
    assert shown == told
    assert removed == (0, "no limit", "")


def test_limits_per_key_are_set_and_told_in_json(run: Run, queue: str) -> None:
    """The object has what is set and what is declared; what is set replaces all that was."""
    run("rate-limit", "echo", "-q", queue, "--limit", "5")

    code, out, _ = run("rate-limit", "echo", "-q", queue, "--limit-per-key", "2", "--concurrency-per-key", "1", "--json")

    rule = json.loads(out)
    assert code == 0
    assert (rule["type"], rule["queue"], rule["declared"]) == ("echo", queue, None)
    assert rule["limits"] == rule["set"]
    assert rule["set"] == {
        "rate": None,
        "rate_per_key": {"count": 2, "per": "second", "burst": 0},
        "concurrency": None,
        "concurrency_per_key": 1,
    }


def test_queue_is_updated_and_shown(run: Run, queue: str) -> None:
    """The ratio stays when the limits are set; the table has a column for what is parked, and the limits stand below it."""
    first = run("update-queue", queue, "--ratio", "5:2:1")
    second = run("update-queue", queue, "--concurrency", "3", "--limit", "9", "--per", "h", "--json")
    shown = run("queues")[1], run("stats")[1], run("update-queue", queue, "--ratio", "4:2:1")[1]
    run("update-queue", queue, "--no-limits")
    listed = {each["name"]: each for each in map(json.loads, run("queues", "--json")[1].splitlines())}

    assert first[0] == second[0] == 0
    assert "PARKED" in first[1]
    assert "PARKED" in run("stats")[1]
    assert json.loads(second[1])["priority_ratio"] == {"high": 5, "normal": 2, "low": 1}
    assert json.loads(second[1])["limits"]["concurrency"] == 3
    assert [f"{queue} is limited to 9/h, 3 at once" in each.splitlines() for each in shown] == [True] * 3
    assert (listed[queue]["parked"], listed[queue]["priority_ratio"]["high"], listed[queue]["limits"]) == (0, 4, None)


def test_breakers_are_listed_and_steered(run: Run) -> None:
    """The order stands in the table, and in the object of --json."""
    held = run("breakers", "dependency", "--control", "open")
    listed = [json.loads(line) for line in run("breakers", "--json")[1].splitlines()]
    freed = run("breakers", "dependency", "--control", "automatic", "--json")
    shown = run("breakers", "dependency")

    (breaker,) = [each for each in listed if each["name"] == "dependency"]
    assert "forced open" in held[1]
    assert (breaker["state"], breaker["control"], breaker["types"]) == ("open", "open", ["guarded"])
    assert json.loads(freed[1])["control"] == "automatic"
    assert (shown[0], "automatic" in shown[1]) == (0, True)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["rate-limit", "echo", "-q", "Q", "--limit", "0"], 2, "--limit: a rate must be 1 to 1000000 jobs, not 0"),
        (["rate-limit", "echo", "-q", "Q", "--limit", "-1"], 2, "limit"),
        (["rate-limit", "echo", "-q", "Q", "--limit", "ten"], 2, "limit"),
        (["rate-limit", "echo", "-q", "Q", "--limit", "1", "--per", "w"], 2, "per"),
        (["rate-limit", "echo", "-q", "Q", "--burst", "5"], 2, "--burst: needs --limit beside it"),
        (["rate-limit", "echo", "-q", "Q", "--burst-per-key", "5"], 2, "--burst-per-key: needs --limit-per-key beside it"),
        (["rate-limit", "echo", "-q", "Q", "--limit", "1", "--burst", "-1"], 2, "--burst: a burst must be 0 to"),
        (["rate-limit", "echo", "-q", "Q", "--concurrency", "0"], 2, "--concurrency: a concurrency limit must be 1 to"),
        (["rate-limit", "echo", "-q", "Q", "--concurrency-per-key", "0"], 2, "--concurrency-per-key: a concurrency limit"),
        (["rate-limit", "echo", "-q", "Q", "--limit", "1", "--remove"], 2, "--remove: takes no limits beside it"),
        (["rate-limit", "*", "-q", "Q", "--limit", "1"], 2, "TYPE: must match"),
        (["rate-limit", "", "-q", "Q", "--limit", "1"], 2, "TYPE: must be set"),
        (["rate-limit", "echo", "-q", "Q", "--remove"], 3, "does not exist"),
        (["rate-limit", "echo", "-q", "Q"], 3, "does not exist"),
        (["update-queue", "Q"], 2, "there is nothing to change"),
        (["update-queue", "Q", "--ratio", "3:2"], 2, "--ratio: must be HIGH:NORMAL:LOW"),
        (["update-queue", "Q", "--ratio", "3:2:0"], 2, "--ratio: must be HIGH:NORMAL:LOW, each 1 to 100"),
        (["update-queue", "Q", "--limit", "0"], 2, "--limit: a rate must be 1 to"),
        (["update-queue", "Q", "--concurrency", "1", "--no-limits"], 2, "--no-limits: takes no limits beside it"),
        (["update-queue", "Q", "--concurrency-per-key", "1"], 2, "concurrency-per-key"),
        (["breakers", "unheard-of"], 3, "breaker 'unheard-of' does not exist"),
        (["breakers", "unheard-of", "--control", "open"], 3, "breaker 'unheard-of' does not exist"),
        (["breakers", "--control", "open"], 2, "NAME: must be given with --control"),
        (["breakers", "dependency", "--control", "half_open"], 2, "control"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusal_is_one_line_with_its_code_and_changes_nothing(
    run: Run, queue: str, argv: list[str], code: int, said: str
) -> None:
    """The option is named, and neither a queue nor an order comes of it."""
    found, out, err = run(*(queue if word == "Q" else word for word in argv))

    assert (found, out) == (code, "")
    assert said in err
    assert err.startswith("gopher: ")
    assert "\n" not in err
    assert queue not in run("queues")[1]
    breakers = [json.loads(line) for line in run("breakers", "--json")[1].splitlines()]
    assert [(each["name"], each["control"]) for each in breakers] == [("dependency", "automatic")]
