"""One word, one meaning: the words of the glossary are the same in code, protos, scripts and keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from gopher_pb.v1 import job_pb2

from gopher.job import JobState, Priority
from gopher.store import keys

ROOT: Final = Path(__file__).resolve().parent.parent

# Word -> the word of the glossary. Matched inside snake_case and CamelCase too, in any case.
BANNED: Final = {
    "canceled": "cancelled",
    "canceler": "who cancels",
    "canceling": "cancelling",
    "dead_?letter_?queue": "dead letter",
    "dequeue": "claim",
    "dlq": "failed, or dead letter",
    "job_?status": "state",
    "morgue": "dead letter",
    "nack": "release",
    "redeliver": "retry",
    "visibility_?timeout": "lease",
}
NAMELESS_FILES: Final = frozenset({"utils", "util", "common", "helpers", "helper", "misc", "types", "constants", "models"})


def sources() -> list[Path]:
    found = [path for folder in ("gopher", "proto/gopher") for path in (ROOT / folder).rglob("*")]
    return sorted(path for path in found if path.suffix in {".py", ".lua", ".proto"})


@pytest.mark.parametrize("word", BANNED)
def test_banned_words_are_not_used(word: str) -> None:
    """Code, scripts and protos use the glossary's word, never its rival."""
    pattern = re.compile(word, re.IGNORECASE)

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == [], f"say {BANNED[word]!r}"


def test_files_are_named_after_what_they_own() -> None:
    """No file is a drawer for what has no home."""
    found = [str(path.relative_to(ROOT)) for path in sources() if path.stem in NAMELESS_FILES]

    assert found == []


def test_job_states_agree_between_proto_and_python() -> None:
    """The proto has the states of `gopher.job`, and one for unset."""
    proto = {value.name.removeprefix("JOB_STATE_").lower() for value in job_pb2.JobState.DESCRIPTOR.values}

    assert proto == {state.value for state in JobState} | {"unspecified"}


def test_priorities_agree_between_proto_and_python() -> None:
    """The proto has the priorities of `gopher.job`, and one for unset."""
    proto = {value.name.removeprefix("PRIORITY_").lower() for value in job_pb2.Priority.DESCRIPTOR.values}

    assert proto == {priority.value for priority in Priority} | {"unspecified"}


@pytest.mark.parametrize("state", JobState)
def test_keys_name_the_index_by_its_state(state: JobState) -> None:
    """The set a job sits in is named by its state."""
    named = [key for found, _, key in keys.indexes("ns", "q") if found is state]

    assert named
    assert all(key.startswith(f"gopher:{{ns:q}}:{state.value}") for key in named)
