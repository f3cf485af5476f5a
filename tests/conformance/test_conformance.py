"""The conformance suite itself: it passes a worker that does all, and notices each fault of one that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from gopher.conformance.checks import CHECKS
from tests.programs import ROOT

LONGEST_SECONDS: Final = 400.0
REFERENCE: Final = [sys.executable, "-m", "tests.conformance.reference_worker"]


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gopher.conformance", *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=ROOT,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def test_worker_that_does_all_passes() -> None:
    """Every check passes, against a worker made from the protos alone."""
    ended = conformance("--at-once", "3", "--", *REFERENCE)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("passed  ") == len(CHECKS)
    assert ended.stdout.endswith(f"{len(CHECKS)} of {len(CHECKS)} checks passed\n")


@pytest.mark.parametrize(
    ("fault", "check", "seen"),
    [
        ("ignores-cancel", "cancel", "the job does not end"),
        ("forgets-leases", "cut", "the handler was begun 2 times"),
        ("ignores-drain", "drain", "it does not end"),
        ("has-no-bound", "credit", "8 jobs ran at once; it has 4 slots"),
        ("never-extends", "extend", "3 lost ones"),
        ("outlives-its-lease", "silence", "the attempt goes on without its lease"),
    ],
)
def test_fault_is_noticed(fault: str, check: str, seen: str) -> None:
    """A worker that errs in one way fails the check that is about it, which says what was seen."""
    ended = conformance("--only", check, "--", *REFERENCE, fault)

    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout.startswith("FAILED")
    assert seen in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no command is given"),
        (["--only", "nonsense", "--", "true"], 2, "there is no check nonsense"),
        (["--at-once", "0", "--", "true"], 2, "at-once"),
        (["--", "no-such-program"], 1, "there is no program 'no-such-program'"),
    ],
)
def test_wrong_command_line_is_told(arguments: list[str], code: int, said: str) -> None:
    """In one line, with an exit code."""
    ended = conformance(*arguments)

    assert ended.returncode == code
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_worker_that_does_not_start_is_told() -> None:
    """With what it wrote last."""
    ended = conformance("--only", "echo", "--", sys.executable, "-c", "print('no thanks'); raise SystemExit(3)")

    assert ended.returncode == 1
    assert "the worker has ended with exit code 3" in ended.stdout
    assert "| no thanks" in ended.stdout


def test_checks_are_listed() -> None:
    """By name, each with what it claims."""
    ended = conformance("--list")

    assert ended.returncode == 0
    assert all(each.name in ended.stdout and each.claim in ended.stdout for each in CHECKS)
