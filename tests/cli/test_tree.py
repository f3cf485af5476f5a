from __future__ import annotations

from gopher.cli.tree import drawn
from gopher.wire.task_tree import TaskTree, TrioNursery, TrioTask


def task(name: str, *nurseries: TrioNursery, left: float | None = None, at: str = "", awaits: str = "") -> TrioTask:
    return TrioTask(
        name=name,
        at=at,
        awaits=awaits,
        deadline_left_seconds=left,
        cancelled=name == "late",
        shielded=name == "late",
        nurseries=list(nurseries),
    )


def nursery(*tasks: TrioTask, left: float | None = None, omitted: int = 0) -> TrioNursery:
    return TrioNursery(deadline_left_seconds=left, cancelled=False, tasks=list(tasks), omitted_count=omitted)


def job(name: str, *children: TaskTree, task: TrioTask | None = None, note: str | None = None, omitted: int = 0) -> TaskTree:
    return TaskTree(
        job_id=f"id-{name}",
        type=name,
        state="processing" if task else "enqueued",
        worker="w1" if task else None,
        task=task,
        children=list(children),
        omitted_count=omitted,
        note=note,
    )


def test_tree_is_drawn() -> None:
    """Nurseries below their task, child jobs below their job, each with what it awaits and how long it still may."""
    first = task("first", nursery(task("leaf")), at="/srv/shop.py:3 fetch", awaits="trio.sleep")
    root = task("shop.work", nursery(first, task("late", left=0.25), left=12.0, omitted=3), left=30.0, awaits="trio.Event.wait")

    lines = list(drawn(job("report", job("page", note="it does not run: it is enqueued"), task=root, omitted=1)))

    assert lines == [
        "report id-report processing on w1",
        "├─ shop.work  [30.0 s left]",
        "│     trio.Event.wait",
        "│  └─ nursery  [12.0 s left]",
        "│     ├─ first",
        "│     │     /srv/shop.py:3 fetch awaits trio.sleep",
        "│     │  └─ nursery",
        "│     │     └─ leaf",
        "│     ├─ late  [0.2 s left, cancelled, shielded]",
        "│     └─ and 3 tasks more",
        "├─ page id-page enqueued",
        "│     (it does not run: it is enqueued)",
        "└─ and 1 jobs more",
    ]
