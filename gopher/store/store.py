"""The store as its users hold it: one link to Redis and what speaks over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopher.store.assignments import Assignments
from gopher.store.attached_jobs import AttachedJobs
from gopher.store.attachments import Attachments
from gopher.store.audit import Audit
from gopher.store.breakers import Breakers
from gopher.store.bulk import BulkOperations
from gopher.store.changes import Changes
from gopher.store.declarations import Declarations
from gopher.store.endings import Endings
from gopher.store.events import Control, Events
from gopher.store.families import Families
from gopher.store.figures import Figures
from gopher.store.history import Histories
from gopher.store.lifecycle import Lifecycle
from gopher.store.limits import LimitRules
from gopher.store.link import Link
from gopher.store.outbox import Outbox
from gopher.store.query import Query
from gopher.store.queue_sweep import QueueSweep
from gopher.store.registry import Registry
from gopher.store.schedules import Schedules
from gopher.store.trees import Trees
from gopher.store.waiting import Waiting

if TYPE_CHECKING:
    from gopher.job import Job


class Store:
    """Everything that a server or a worker asks of Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        client_name: What `CLIENT LIST` shows.
        timeout_seconds: How long Redis may be away or silent before calls fail.
    """

    def __init__(self, url: str, *, client_name: str = "gopher", timeout_seconds: float = 5.0) -> None:
        self.link = Link(url, client_name=client_name, connect_grace_seconds=timeout_seconds, reply_seconds=timeout_seconds)
        self.run = self.link.run
        """Connects and keeps the connection until cancelled; see `Link.run`."""
        self.registry = Registry(self.link)
        self.declarations = Declarations(self.link, self.registry)
        self.lifecycle = Lifecycle(self.link, self.registry)
        self.assignments = Assignments(self.link)
        self.outbox = Outbox(self.link, self.registry)
        self.families = Families(self.link, self.registry)
        self.attachments = Attachments(self.link)
        self.attached_jobs = AttachedJobs(self.link, self.registry)
        self.changes = Changes(self.link)
        self.schedules = Schedules(self.link, self.registry)
        self.limits = LimitRules(self.link, self.registry)
        self.breakers = Breakers(self.link)
        self.query = Query(self.link, self.registry)
        self.queue_sweep = QueueSweep(self.link, self.registry)
        self.bulk = BulkOperations(self.link, self.registry)
        self.figures = Figures(self.link)
        self.events = Events(self.link, self.registry)
        self.histories = Histories(self.link)
        self.control = Control(self.link)
        self.trees = Trees(self.link)
        self.waiting = Waiting(self.link, self.registry)
        self.endings = Endings(self.link)
        self.audit = Audit(self.link, self.registry, self.lifecycle)

    async def wait(self, namespace: str, job_id: str) -> Job:
        """Return a job once it is final; the caller's cancel scope bounds the wait.

        Raises:
            JobNotFoundError: There is no such job, or it was deleted meanwhile.
        """
        while True:
            async with self.events.follow(namespace, job_id) as changes:
                job = await self.query.get(namespace, job_id)
                if job.state.is_final:
                    return job
                async for change in changes:
                    if change is None or change.state is None or change.state.is_final:
                        job = await self.query.get(namespace, job_id)
                        # It may have been requeued since, and then there is more to wait for.
                        if job.state.is_final:
                            return job
            # Changes came faster than they were taken: begin afresh.
