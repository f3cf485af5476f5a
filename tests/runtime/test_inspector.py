"""What a worker answers when a server asks for an attempt, however its handler runs; and that nobody can keep it busy by asking."""

from __future__ import annotations

import asyncio  # noqa: TID251 - some of the handlers here are on asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import structlog.testing
import trio
import trio.testing

from gopher.runtime import inspector as module
from gopher.runtime.inspector import Inspector
from gopher.runtime.slots import Slots
from gopher.store.trees import Answer
from tests.runtime.rig import claimed_job
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gopher.runtime.scopes import RunningAttempt
    from gopher.store.store import Store
    from tests.runtime.rig import Bench


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What thread handlers wait for; opened at the end, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


def inspector_of(bench: Bench, store: Store, namespace: str) -> Inspector:
    return Inspector(store.trees, bench.registry, bench.scopes, namespace=namespace, queue="default")


def begin(bench: Bench, nursery: trio.Nursery) -> RunningAttempt:
    """Have an attempt run in a slot of its own."""
    attempt = bench.take()
    slots = Slots(bench.runner, nursery)
    slots.put_nowait(attempt, bench.handed)
    slots.start_nowait()
    return attempt


def told(inspector: Inspector, attempt: RunningAttempt) -> Answer:
    return msgspec.json.decode(inspector.answer(attempt), type=Answer)


async def test_server_is_answered(bench: Bench, store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """Through Redis, by the worker that has the attempt."""

    @bench.handler
    async def work(job: object, payload: object) -> None:
        await trio.sleep_forever()

    inspector = inspector_of(bench, store, namespace)

    def receive(_word: str, rest: list[str]) -> None:
        inspector.ask_nowait(rest[0], int(rest[1]), rest[2])

    await store.control.listen(namespace, "default", receive)
    await nursery.start(inspector.run)
    attempt = begin(bench, nursery)
    await until(lambda: attempt.began_at is not None)

    with trio.fail_after(30):
        answer = await store.trees.ask(namespace, "default", attempt.job.id, attempt.job.token)

    assert answer.task is not None
    assert answer.task.name == f"{__name__}.{work.__qualname__}"
    assert (answer.task.at.rpartition(".")[2], answer.task.awaits, answer.note) == ("work", "trio.sleep_forever", "")


async def test_nobody_answers_where_no_worker_hears(store: Store, namespace: str) -> None:
    """The server does not wait for it."""
    with trio.fail_after(30):
        answer = await store.trees.ask(namespace, "default", claimed_job().id, 1)

    assert (answer.task, answer.note) == (None, "no worker of its queue hears")


async def test_attempt_of_another_worker_is_not_answered_for(bench: Bench, store: Store, namespace: str) -> None:  # noqa: ASYNC124 - its fixtures need the loop
    """Nor one whose lease token is not that of the question."""
    inspector = inspector_of(bench, store, namespace)
    attempt = bench.take()

    inspector.ask_nowait(attempt.job.id, attempt.job.token + 1, "q")
    inspector.ask_nowait(claimed_job().id, 1, "q")

    assert inspector._receive.statistics().current_buffer_used == 0


async def test_questions_that_find_the_line_full_are_not_answered(bench: Bench, store: Store, namespace: str) -> None:  # noqa: ASYNC124 - its fixtures need the loop
    """However many ask, what waits is bounded."""
    inspector = inspector_of(bench, store, namespace)
    attempt = bench.take()

    with structlog.testing.capture_logs() as lines:
        for number in range(module._MOST_WAITING + 3):
            inspector.ask_nowait(attempt.job.id, attempt.job.token, str(number))

    assert [line["event"] for line in lines] == ["tree.refused"] * 3


async def test_thread_of_a_handler_is_shown(
    bench: Bench, store: Store, namespace: str, nursery: trio.Nursery, gate: threading.Event
) -> None:
    """Where it is, in place of the Trio task that waits for it."""

    @bench.handler
    def work(job: object, payload: object) -> None:
        gate.wait()

    inspector = inspector_of(bench, store, namespace)
    attempt = begin(bench, nursery)

    def is_in_thread() -> bool:
        task = told(inspector, attempt).task
        return task is not None and task.awaits.endswith("wait")

    await until(lambda: attempt.began_at is not None and is_in_thread())
    answer = told(inspector, attempt)
    gate.set()

    assert answer.task is not None
    assert answer.task.at.rpartition(".")[2] == "work"
    assert "runs in a thread" in answer.note


@pytest.mark.parametrize("is_shared", [False, True])
async def test_asyncio_tasks_of_a_handler_are_shown(
    bench: Bench, store: Store, namespace: str, nursery: trio.Nursery, is_shared: bool
) -> None:
    """In a loop of its own, and in one that all attempts share: of that only what is charged to the attempt."""
    if is_shared:

        @bench.registry.lifespan(asyncio=True)
        @asynccontextmanager
        async def shared() -> AsyncIterator[None]:
            yield

    @bench.registry.handler("work", asyncio=True)
    async def work(job: object, payload: object) -> None:
        task = asyncio.create_task(fetch(), name="fetcher")
        await task

    async def fetch() -> None:
        await asyncio.sleep(600)

    inspector = inspector_of(bench, store, namespace)
    async with bench.open_lifespans():
        attempt = begin(bench, nursery)

        def has_tasks() -> bool:
            task = told(inspector, attempt).task
            return task is not None and bool(task.nurseries) and len(task.nurseries[0].tasks) == 2

        await until(lambda: attempt.began_at is not None and has_tasks())
        answer = told(inspector, attempt)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):  # the lifespan is closed once its attempt has gone
            await until(lambda: not len(bench.scopes))

    assert answer.task is not None
    tasks = {task.name: task for task in answer.task.nurseries[0].tasks}
    assert (tasks["fetcher"].at.rpartition(".")[2], tasks["fetcher"].awaits) == ("fetch", "asyncio.tasks.sleep")
    assert "asyncio" in answer.note


async def test_what_does_not_run_says_so(bench: Bench, store: Store, namespace: str) -> None:  # noqa: ASYNC124 - its fixtures need the loop
    """Before it begins, once it has ended, and where its tasks are in another process."""

    @bench.registry.handler("work", process=True)
    def work(job: object, payload: object) -> None:
        raise AssertionError

    inspector = inspector_of(bench, store, namespace)
    attempt = bench.take()
    notes = [told(inspector, attempt).note]
    attempt.begin(trio.CancelScope())
    notes.append(told(inspector, attempt).note)
    attempt.end()
    notes.append(told(inspector, attempt).note)

    assert ["turn to begin" in notes[0], "process of its own" in notes[1], "has ended" in notes[2]] == [True] * 3


async def test_answer_stays_within_its_bound(
    bench: Bench, store: Store, namespace: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer tasks are shown until it does, and those left out are counted."""
    monkeypatch.setattr(module, "_MOST_BYTES", 2_000)

    @bench.handler
    async def work(job: object, payload: object) -> None:
        async with trio.open_nursery() as inner:
            for _ in range(90):
                inner.start_soon(trio.sleep_forever)

    inspector = inspector_of(bench, store, namespace)
    attempt = begin(bench, nursery)
    await trio.testing.wait_all_tasks_blocked()

    answer = inspector.answer(attempt)

    assert len(answer) <= 2_000
    (shown,) = getattr(msgspec.json.decode(answer, type=Answer).task, "nurseries", [])
    assert len(shown.tasks) + shown.omitted == 90
    assert 0 < len(shown.tasks) < 90
