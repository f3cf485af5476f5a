"""Submitting a stream with each of the clients against a real server: order, refusals, look-ahead, and how it ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gopher.client import CallEndedError, Client, Receipt, ServerUnreachableError
from gopher.client.submit_stream import MAX_ITEMS
from gopher.errors import GopherError, InvalidRequestError, UnknownTypeError
from tests.client.faces import FACES, AsyncFace
from tests.client.test_clients import PATIENCE, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gopher.client import JobItem
    from gopher.client.submit_stream import Answer
    from tests.client.faces import Face


def numbered(count: int, queue: str) -> Iterator[JobItem]:
    for number in range(count):
        yield {"type": "echo", "payload": number, "queue": queue}


def test_stream_answers_each_item_in_order(face: Face) -> None:
    """Many more items than are ever under way each become a job, and the answers come in the order of the items."""
    count = 5 * MAX_ITEMS

    answers = face.submit_stream(numbered(count, fresh("q")))

    assert all(isinstance(answer, Receipt) for answer in answers)
    ids = [answer.job_id for answer in answers if isinstance(answer, Receipt)]
    assert len(set(ids)) == count
    assert [face.get(ids[place]).payload for place in (0, count - 1)] == [b"0", str(count - 1).encode()]  # type: ignore[attr-defined]  # a Job


def test_stream_of_nothing_answers_nothing(face: Face) -> None:
    """No item is no fault."""
    assert face.submit_stream([]) == []


def test_refused_items_are_answers_too(face: Face) -> None:
    """An item that the server refuses and one that no message can carry are told in their places, at the ends and in between."""
    good: JobItem = {"type": "echo", "payload": 1}
    bad: JobItem = {"type": "echo", "payload": 1, "priority": "urgent"}
    unknown: JobItem = {"type": "no-such-type", "payload": 1}

    answers = face.submit_stream([bad, good, unknown, bad, good, bad])

    kinds = [type(answer) for answer in answers]
    assert kinds == [InvalidRequestError, Receipt, UnknownTypeError, InvalidRequestError, Receipt, InvalidRequestError]
    assert "jobs[3].priority" in str(answers[3])


def test_request_id_makes_an_item_repeatable(face: Face) -> None:
    """The same items streamed again are the same jobs."""
    items: list[JobItem] = [{"type": "echo", "payload": n, "request_id": fresh("r")} for n in range(3)]

    first, second = face.submit_stream(items), face.submit_stream(items)

    assert all(isinstance(answer, Receipt) and answer.is_duplicate for answer in second)
    assert _ids(first) == _ids(second)


def _ids(answers: list[Answer]) -> list[str]:
    return [answer.job_id for answer in answers if isinstance(answer, Receipt)]


def test_items_are_read_no_further_ahead_than_the_bound(face: Face) -> None:
    """However many items there are, no more are read than the answers taken and the bound; each answer makes room for one."""
    read, ahead = 0, list[int]()

    def items() -> Iterator[JobItem]:
        nonlocal read
        for item in numbered(6 * MAX_ITEMS, fresh("q")):
            read += 1
            yield item

    def look(_: Answer) -> None:
        ahead.append(read - len(ahead))

    answers = face.submit_stream(items(), look)

    assert len(answers) == 6 * MAX_ITEMS
    assert max(ahead) <= MAX_ITEMS + 1


def test_first_answer_does_not_wait_for_a_second_item(dev_address: str) -> None:
    """A source that gives an item now and then is answered item by item, by the clients that read it in a thread."""
    answered = threading.Event()

    def items() -> Iterator[JobItem]:
        yield {"type": "echo", "payload": 1}
        assert answered.wait(PATIENCE)
        yield {"type": "echo", "payload": 1}

    for kind in ("sync", "trio"):
        answered.clear()
        face = FACES[kind](dev_address)
        answers = face.submit_stream(items(), lambda _: answered.set())
        face.close()

        assert len(answers) == 2


def test_error_of_the_items_is_raised_after_their_answers(face: Face) -> None:
    """What the caller's iterable raises reaches the caller, once what it gave before is answered."""
    answers: list[Answer] = []

    def items() -> Iterator[JobItem]:
        yield from numbered(3, fresh("q"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        face.submit_stream(items(), answers.append)

    assert len(_ids(answers)) == 3


def test_stream_can_be_left(face: Face) -> None:
    """A caller that has seen enough leaves an endless stream, and nothing goes on reading its items."""
    read = 0

    def items() -> Iterator[JobItem]:
        nonlocal read
        while True:
            read += 1
            yield {"type": "echo", "payload": read, "queue": queue}

    def stop(_: Answer) -> None:
        raise KeyError

    queue = fresh("q")
    with pytest.raises(KeyError):
        face.submit_stream(items(), stop)

    assert read <= 2 * MAX_ITEMS


def test_stream_without_request_ids_is_not_sent_twice() -> None:
    """A server that is not there ends it at once: whether an item had arrived could not be known."""
    with Client("127.0.0.1:1") as client, pytest.raises(ServerUnreachableError):
        list(client.submit_stream(numbered(3, "q")))


def test_bad_namespace_ends_the_stream(dev_address: str) -> None:
    """It is no fault of an item: the stream ends with the error."""
    with Client(dev_address, namespace="a:b") as client, pytest.raises(GopherError, match="namespace"):
        list(client.submit_stream(numbered(3, "q")))


def test_closed_client_says_so(face: Face) -> None:
    """A client that was closed makes no call."""
    face.submit_stream([])
    if isinstance(face, AsyncFace):
        face.run(face.client.aclose)
    else:
        face.close()

    with pytest.raises(CallEndedError):
        face.submit_stream(numbered(3, "q"))
