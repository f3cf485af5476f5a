"""GetJob with the view TASK_TREE: what is told of jobs whose workers answer, do not answer, or are not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from gopher_pb.v1 import job_pb2
from gopher_pb.v1 import job_service_pb2 as pb

from gopher.errors import InvalidRequestError, JobNotFoundError
from gopher.job import NewJob
from gopher.service import task_trees
from gopher.store.families import Member, Start
from gopher.store.trees import Answer, NurseryNode, TaskNode
from tests.waiting import until

if TYPE_CHECKING:
    from gopher_pb.v1 import task_tree_pb2

    from gopher.store.codec import ClaimedJob
    from tests.service.conftest import Rig

TREE = pb.JobView.JOB_VIEW_TASK_TREE
UNKNOWN = "01a20c6c-0282-7492-ab17-767f938b0000"
NODE = TaskNode(
    name="shop.work",
    at="/srv/shop.py:3 work",
    awaits="trio.sleep",
    deadline_left_seconds=1.5,
    nurseries=[NurseryNode(cancelled=True, tasks=[TaskNode(name="leaf", shielded=True)], omitted=2)],
)


async def tree_of(rig: Rig, job_id: str) -> task_tree_pb2.TaskTree:
    return (await rig.jobs.get_job(pb.GetJobRequest(namespace=rig.namespace, job_id=job_id, view=TREE))).task_tree


async def answer_all(rig: Rig, answer: bytes, nursery: trio.Nursery) -> list[tuple[str, int]]:
    """Be the worker: answer every question, and note of which attempt it was."""
    asked: list[tuple[str, int]] = []

    def receive(word: str, rest: list[str]) -> None:
        if word == "tree":
            asked.append((rest[0], int(rest[1])))
            nursery.start_soon(partial(rig.store.trees.answer, rig.namespace, "default", rest[2], answer))

    await rig.store.control.listen(rig.namespace, "default", receive)
    return asked


async def start_child(rig: Rig, parent: ClaimedJob, number: int) -> str:
    """Be a nursery of jobs: start a child of a running attempt."""
    families = rig.store.families
    child_id = await families.reserve(rig.namespace, "default")
    start = Start(Member(f"{parent.token}.1.{number}", child_id, "cancel", "f"), NewJob(type="email"))
    assert await families.start(rig.namespace, "default", parent.id, parent.token, [start], "") is not None
    return child_id


@pytest.mark.leaves_keys  # the parent runs on
async def test_tree_tells_what_the_worker_answers(rig: Rig, nursery: trio.Nursery) -> None:
    """Each field of each task, and the children that have not ended, which do not run yet."""
    asked = await answer_all(rig, msgspec.json.encode(Answer(task=NODE, note="well")), nursery)
    job_id = await rig.submit()
    (job,) = await rig.claim()
    child_id = await start_child(rig, job, 1)

    tree = await tree_of(rig, job_id)

    (nursery_told,) = tree.task.nurseries
    (leaf,) = nursery_told.tasks
    (child,) = tree.children
    assert asked == [(job_id, job.token)]
    assert (tree.job_id, tree.type, tree.state, tree.worker, tree.note) == (job_id, "email", 3, "w1", "well")
    assert tree.state == job_pb2.JOB_STATE_PROCESSING
    assert (tree.task.name, tree.task.at, tree.task.awaits) == ("shop.work", "/srv/shop.py:3 work", "trio.sleep")
    assert tree.task.deadline_left.ToMilliseconds() == 1500
    assert (nursery_told.cancelled, nursery_told.omitted_count) == (True, 2)
    assert not nursery_told.HasField("deadline_left")
    assert (leaf.name, leaf.shielded, leaf.cancelled) == ("leaf", True, False)
    note = "it does not run: it is enqueued; no live worker claims from queue 'default'"
    assert (child.job_id, child.state, child.note) == (child_id, job_pb2.JOB_STATE_ENQUEUED, note)
    assert not child.HasField("task")


async def test_job_alone_is_told_without_the_view(rig: Rig) -> None:
    """Nobody is asked then."""
    job_id = await rig.submit()

    reply = await rig.jobs.get_job(pb.GetJobRequest(namespace=rig.namespace, job_id=job_id))

    assert not reply.HasField("task_tree")


@pytest.mark.parametrize(
    ("job_id", "view", "error"),
    [
        (UNKNOWN, TREE, JobNotFoundError),
        ("nonsense", TREE, InvalidRequestError),
        (UNKNOWN, 99, InvalidRequestError),
        (UNKNOWN, -1, InvalidRequestError),
    ],
)
async def test_bad_question_is_refused(rig: Rig, job_id: str, view: int, error: type[Exception]) -> None:
    """An id that is none, one that is nobody's, and a view that there is not."""
    await rig.submit()

    with pytest.raises(error):
        await rig.jobs.get_job(pb.GetJobRequest(namespace=rig.namespace, job_id=job_id, view=view))  # type: ignore[arg-type] # a number that is none


async def test_job_of_another_namespace_is_not_found(rig: Rig) -> None:
    """Its tree tells nobody else anything, not even that it is there."""
    job_id = await rig.submit()

    with pytest.raises(JobNotFoundError):
        await rig.jobs.get_job(pb.GetJobRequest(namespace="elsewhere", job_id=job_id, view=TREE))


@pytest.mark.parametrize(
    ("worker", "note"),
    [
        ("w1", "its worker's loop is blocked by shop.send j2 for 2 s"),
        ("w2", "its worker is gone, or cut off: it runs elsewhere once its lease has ended"),
    ],
)
async def test_worker_that_does_not_answer_is_told_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, worker: str, note: str
) -> None:
    """By what the register knows: that its loop is blocked and by what, or that it is not there."""
    monkeypatch.setattr(task_trees, "ANSWER_SECONDS", 0.05)
    await rig.store.control.listen(rig.namespace, "default", lambda *_: None)
    await rig.add_worker(worker, ["email"])
    job_id = await rig.submit()
    await rig.claim()

    tree = await tree_of(rig, job_id)

    assert (tree.HasField("task"), tree.note) == (False, note)


async def test_answer_that_cannot_be_read_is_told_of(rig: Rig, nursery: trio.Nursery) -> None:
    """Whatever a worker of another version says."""
    await answer_all(rig, b"\xff{", nursery)
    job_id = await rig.submit()
    await rig.claim()

    tree = await tree_of(rig, job_id)

    assert (tree.HasField("task"), tree.note) == (False, "its worker's answer cannot be read")


@pytest.mark.leaves_keys  # likewise
async def test_many_children_are_cut_and_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one job, and of the whole tree."""
    monkeypatch.setattr(task_trees, "MOST_CHILDREN", 3)
    job_id = await rig.submit()
    (job,) = await rig.claim()
    for number in range(5):
        await start_child(rig, job, number)

    tree = await tree_of(rig, job_id)
    monkeypatch.setattr(task_trees, "MOST_JOBS", 2)
    small = await tree_of(rig, job_id)

    assert (len(tree.children), tree.omitted_count) == (3, 2)
    assert (len(small.children), small.omitted_count) == (1, 4)


async def test_many_callers_ask_a_few_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for their turn, within the same two seconds, and are told so where it does not come."""
    asked: list[str] = []
    await rig.store.control.listen(rig.namespace, "default", lambda word, rest: asked.append(word) if word == "tree" else None)
    job_id = await rig.submit()
    await rig.claim()
    notes: list[str] = []

    async def ask() -> None:
        notes.append((await tree_of(rig, job_id)).note)

    # Those whose turn it is wait for longer than the others, so that no turn comes in the others' last moment.
    monkeypatch.setattr(task_trees, "ANSWER_SECONDS", 3600.0)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask)
        await until(lambda: len(asked) == 8)
        monkeypatch.setattr(task_trees, "ANSWER_SECONDS", 0.3)
        async with trio.open_nursery() as others:
            for _ in range(12):
                others.start_soon(ask)
        nursery.cancel_scope.cancel()

    assert len(asked) == 8
    assert sum("ask again" in note for note in notes) == 12
