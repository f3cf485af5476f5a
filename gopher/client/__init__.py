"""The Python clients: `Client` for programs that block, `AsyncClient` for asyncio, `TrioClient` for Trio; the same methods in each.

    from gopher.client import Client

    with Client("127.0.0.1:50051") as client:
        job_id = client.submit("email", {"to": "a@example.com"}, priority="high")
        print(client.result(job_id, wait=30))

In reading order: `values` (what comes back), `submission` (what goes out), `calls`, `operations`, `schedules` and `bulk` (the rpcs), `dialogues`
(what takes more than one call), `submit_stream` (what a stream of submits has under way), `runs` (what is known of an attached job), `nursery`
and `nursery_stream` (the children of a nursery, and what is said of them), `channel` (errors and options), and the three that carry it
all: `sync`, `asynchronous` with `aio` and `trio_client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher.bulk import BulkOperation
from gopher.client.bulk import BulkFilter
from gopher.client.calls import Receipt
from gopher.client.channel import CallEndedError, ServerUnreachableError
from gopher.client.dialogues import SubmitManyError
from gopher.client.schedules import ScheduleOptions
from gopher.client.submission import JobItem, SubmitOptions
from gopher.client.sync import Client
from gopher.client.sync_runs import AttachedJob
from gopher.client.values import (
    AuditFinding,
    AuditReport,
    JobEvent,
    JobType,
    LoopBlock,
    Percentiles,
    Queue,
    RedisStats,
    Stats,
    TypeStats,
    WaitStats,
    Worker,
)
from gopher.event import ChildChange, EventKind, LogLine, Notice, OutputChunk, Truncation
from gopher.schedule import Schedule
from gopher.wire.task_tree import TaskTree, TrioNursery, TrioTask

if TYPE_CHECKING:
    from gopher.client.aio import AsyncClient
    from gopher.client.async_runs import AsyncAttachedJob
    from gopher.client.trio_client import TrioClient

__all__ = [
    "AsyncAttachedJob",
    "AsyncClient",
    "AttachedJob",
    "AuditFinding",
    "AuditReport",
    "BulkFilter",
    "BulkOperation",
    "CallEndedError",
    "ChildChange",
    "Client",
    "EventKind",
    "JobEvent",
    "JobItem",
    "JobType",
    "LogLine",
    "LoopBlock",
    "Notice",
    "OutputChunk",
    "Percentiles",
    "Queue",
    "Receipt",
    "RedisStats",
    "Schedule",
    "ScheduleOptions",
    "ServerUnreachableError",
    "Stats",
    "SubmitManyError",
    "SubmitOptions",
    "TaskTree",
    "TrioClient",
    "TrioNursery",
    "TrioTask",
    "Truncation",
    "TypeStats",
    "WaitStats",
    "Worker",
]


def __getattr__(name: str) -> object:
    """Import the client that is asked for: a program uses one, and need not load asyncio or Trio for the others."""
    if name == "AsyncClient":
        from gopher.client.aio import AsyncClient

        return AsyncClient
    if name == "AsyncAttachedJob":
        from gopher.client.async_runs import AsyncAttachedJob

        return AsyncAttachedJob
    if name == "TrioClient":
        from gopher.client.trio_client import TrioClient

        return TrioClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
