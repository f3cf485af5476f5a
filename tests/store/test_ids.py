"""Job ids: well formed, in order, and carrying the number of their queue."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.errors import InvalidRequestError
from gopher.store.ids import IdSource, queue_number

MS = 1_800_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock that IdSource reads, in ms: set its only entry."""
    now = [MS]
    monkeypatch.setattr(time, "time_ns", lambda: now[0] * 1_000_000)
    return now


@given(st.integers(0, 65_535))
def test_queue_number_comes_back_out_of_an_id(number: int) -> None:
    """An id alone tells its queue."""
    assert queue_number(IdSource().new(number)) == number


def test_new_id_is_a_uuid_of_version_7() -> None:
    """Other software reads our ids as UUIDv7 (RFC 9562), with the moment in front."""
    before_ms = time.time_ns() // 1_000_000

    made = uuid.UUID(IdSource().new(3))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before_ms <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_new_id_is_greater_than_the_one_before(clock: list[int]) -> None:
    """Ids of one process sort in the order in which they were made, also within a ms."""
    source = IdSource()

    made = [source.new(number % 7) for number in range(20_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_new_id_grows_while_the_clock_stands_back(clock: list[int]) -> None:
    """A clock that is set back an hour neither repeats nor disorders ids."""
    source = IdSource()
    first = source.new(0)
    clock[0] -= 3_600_000

    later = [source.new(0) for _ in range(3)]
    clock[0] += 7_200_000
    last = source.new(0)

    assert [first, *later, last] == sorted([first, *later, last])


def test_new_id_stays_well_formed_when_a_ms_is_used_up(clock: list[int]) -> None:
    """More ids than the counter holds borrow from the next ms instead of running into the version bits."""
    source = IdSource()
    before = source.new(0)
    source._counter = (1 << 26) - 2

    made = [source.new(9) for _ in range(4)]

    assert made == sorted(made)
    assert made[0] > before
    assert [queue_number(job_id) for job_id in made] == [9, 9, 9, 9]
    assert {uuid.UUID(job_id).version for job_id in made} == {7}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "not-a-job-id",
        "01998c2e-7a00-4000-8000-00000000000a",
        "01998c2e-7a00-7000-c000-00000000000a",
        "01998C2E-7A00-7000-8000-00000000000A",
        "01998c2e7a0070008000000000000000000a",
        "01998c2e-7a00-7000-8000-00000000000a\n",
        "{01998c2e-7a00-7000-8000-00000000000a}",
        "01998c2e-7a00-7000-8000-0000000000٣a",
        "x" * 10_000,
    ],
)
def test_queue_number_refuses_what_is_no_job_id(text: str) -> None:
    """Text that is no lower-case UUIDv7 is refused by name, and a long one is not echoed whole."""
    with pytest.raises(InvalidRequestError) as caught:
        queue_number(text)

    (violation,) = caught.value.violations
    assert (violation.field, violation.reason) == ("job_id", "BAD_ID")
    assert len(violation.description) < 200
