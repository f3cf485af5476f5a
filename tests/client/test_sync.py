from __future__ import annotations

import threading

import pytest

from gopher.client import CallEndedError, Client

PATIENCE = 60


def test_client_may_be_used_from_many_threads(dev_address: str) -> None:
    """Each thread gets its own answers over the one connection."""
    answers: dict[int, object] = {}

    with Client(dev_address) as client:

        def echo(number: int) -> None:
            answers[number] = client.result(client.submit("echo", number), wait=PATIENCE)

        threads = [threading.Thread(target=echo, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    assert answers == {number: number for number in range(20)}


def test_client_watch_can_be_left_early(dev_address: str) -> None:
    """Closing the iterator ends the stream; the client goes on."""
    with Client(dev_address) as client:
        job_id = client.submit("echo", delay_seconds=3600)
        events = client.watch(job_id)

        first = next(events)
        events.close()  # type: ignore[attr-defined]  # it is a generator

        assert first.job_id == client.get(job_id).id


def test_client_closed_ends_its_calls(dev_address: str) -> None:
    """A call under way in another thread, and every later one, ends with an error that says so."""
    ended: list[Exception] = []
    started = threading.Event()

    def wait(client: Client, job_id: str) -> None:
        started.set()
        try:
            client.wait(job_id)
        except CallEndedError as error:
            ended.append(error)

    with Client(dev_address) as client:
        job_id = client.submit("echo", delay_seconds=3600)
        thread = threading.Thread(target=wait, args=(client, job_id))
        thread.start()
        started.wait(PATIENCE)
    thread.join(PATIENCE)

    assert len(ended) == 1
    with pytest.raises(CallEndedError):
        client.get(job_id)
