"""Proves that every job stands in exactly one place, and mends what does not.

Two walks: over the records, which finds a job that stands in no index, and over every index, which finds an id that has no record
or stands where its record does not say. Both only gather ids; each is judged, and mended, inside of one script call, so that a
job that moves meanwhile is never found guilty. No walk holds more than a slice in memory, and no call keeps Redis for more than
some milliseconds.

The findings, by kind:

- MISSING_INDEX: the record stands in no index; or it waits with a deadline and is not in the index of deadlines; or it runs under
  a concurrency limit that does not count it; or a limit holds jobs back and is not among those to be asked again.
- DOUBLE_INDEX: it stands in several.
- STATE_MISMATCH: it stands in one, but not in that of its state; or its state is none; or it is in deadlines and has none; or it
  counts as running under a limit and does not.
- ORPHAN_ID: an index has an id that has no record.
- LEASELESS_RUNNING: it is processing with no lease, so that nobody would ever take it back.
- TOKENLESS_RUNNING: it is processing with no lease token, so that nobody can settle it.
- LEASE_OVERDUE: it is processing under a lease that ended long ago: neither a worker of its queue nor a server takes it back.
- UNNAMED_QUEUE: a queue has jobs and no name, so that no list shows it; or their ids carry a number that is not the queue's, so that they
  do not find them. A number that another queue has got meanwhile cannot be given back.
- UNIQUE_LEAK: a unique key is held by a job that has ended or never asked for it; or a job that has not ended lacks its key.
- COUNTER_DRIFT: a lease token is greater than the queue has counted to, so that tokens would be given twice; or the count of parked
  jobs, which stand in any number of lines, is not that of their lines. No other count can drift: those are the lengths of the indexes.
- NO_TTL: a key that remembers a request or a claim would never go away.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gopher.job import Priority
from gopher.store import ids, keys
from gopher.store.scripts import Script
from gopher.store.submission import BATCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gopher.store.lifecycle import Lifecycle
    from gopher.store.link import Link
    from gopher.store.registry import Registry
    from gopher.store.resp import Argument, Reply

_SLICE: Final = 250
"""Keys or ids a call looks at, about. Measured: 250 keep Redis for 1.5 ms, 500 for up to 5.5 ms; 100,000 jobs take 2.4 s."""
_COUNTED_AT_ONCE: Final = 1000
"""What holds jobs back, of which one script counts the lines; chosen: some 2 ms."""
_TTL_MS: Final = 24 * 3600 * 1000
"""What a key without an end is given: that of a request id, the longest."""


class FindingKind(StrEnum):
    """What can be wrong; the module tells what each means."""

    MISSING_INDEX = "MISSING_INDEX"
    DOUBLE_INDEX = "DOUBLE_INDEX"
    STATE_MISMATCH = "STATE_MISMATCH"
    ORPHAN_ID = "ORPHAN_ID"
    LEASELESS_RUNNING = "LEASELESS_RUNNING"
    TOKENLESS_RUNNING = "TOKENLESS_RUNNING"
    LEASE_OVERDUE = "LEASE_OVERDUE"
    UNNAMED_QUEUE = "UNNAMED_QUEUE"
    UNIQUE_LEAK = "UNIQUE_LEAK"
    COUNTER_DRIFT = "COUNTER_DRIFT"
    NO_TTL = "NO_TTL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        kind: What is wrong.
        queue: Where.
        job_id: Whose; empty when it concerns no job.
        detail: For people.
        repaired: Whether it was mended.
    """

    kind: FindingKind
    queue: str
    job_id: str
    detail: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProgress:
    """How far an audit has come.

    Attributes:
        findings: Those since the last report; none is reported twice.
        jobs_checked: Records looked at so far.
    """

    findings: tuple[Finding, ...]
    jobs_checked: int


class Audit:
    """Checks the queues of a namespace."""

    def __init__(self, link: Link, registry: Registry, lifecycle: Lifecycle) -> None:
        self._link = link
        self._registry = registry
        self._audit = Script.load("audit")
        self._audit_unique = Script.load("audit_unique")
        self._audit_parked = Script.load("audit_parked")
        self._lifecycle = lifecycle

    async def run(self, namespace: str, *, repair: bool, report: Callable[[AuditProgress], Awaitable[None]]) -> None:
        """Check every job and every index of a namespace, while work goes on.

        Args:
            namespace: Of the queues.
            repair: Whether to mend what is found.
            report: Awaited after each slice that held records or findings.

        Cancellation:
            What was mended stays mended.
        """
        tally = _Tally(report)
        queues = await self._walk_keys(namespace, tally, repair=repair)
        for queue in sorted(queues.union(await self._registry.queues(namespace))):
            for key in (*(key for _, _, key in keys.indexes(namespace, queue)), keys.deadlines(namespace, queue)):
                await self._walk_index(namespace, queue, key, tally, repair=repair)
            await self._check_parked(namespace, queue, tally, repair=repair)
            await self._check_name(namespace, queue, tally, repair=repair)
            if repair:
                await self._take_back(namespace, queue, tally)

    async def _walk_keys(self, namespace: str, tally: _Tally, *, repair: bool) -> set[str]:
        """Check all keys there are; return the queues that have any."""
        queues = set()
        cursor: Argument = 0
        while True:
            cursor, names = await self._link.call("SCAN", cursor, "MATCH", keys.all_queues(namespace), "COUNT", _SLICE)
            for queue, found in _sorted_by_queue(namespace, names).items():
                queues.add(queue)
                await self._check_keys(namespace, queue, found, tally, repair=repair)
            if int(cursor) == 0:
                return queues

    async def _check_keys(self, namespace: str, queue: str, names: list[str], tally: _Tally, *, repair: bool) -> None:
        settings = [keys.settings(namespace, queue)]
        jobs = [name.removeprefix("job:") for name in names if name.startswith("job:")]
        uniques = [name.removeprefix("unique:") for name in names if name.startswith("unique:")]
        tally.numbers.setdefault(queue, set()).update(each[-4:] for each in jobs if ids.is_job_id(each))
        if jobs:
            checked, *findings = await self._audit(self._link, settings, [int(repair), "job", *jobs])
            await tally.add(queue, findings, checked)
        if uniques:
            await tally.add(queue, await self._audit_unique(self._link, settings, [int(repair), *uniques]))
        held_back = [name for name in names if name.startswith(("parked:", "limit:concurrency:"))]
        if held_back:
            await tally.add(queue, await self._audit_parked(self._link, settings, [int(repair), *held_back]))
        for name in held_back:
            if name.startswith("parked:"):
                await self._walk_index(namespace, queue, keys.queue(namespace, queue) + name, tally, repair=repair)
        fleeting = [name for name in names if name.startswith(("request:", "claim:"))]
        await self._check_ends(namespace, queue, fleeting, tally, repair=repair)

    async def _check_ends(self, namespace: str, queue: str, names: list[str], tally: _Tally, *, repair: bool) -> None:
        prefix = keys.queue(namespace, queue)
        ends = await self._link.call_many([("PTTL", prefix + name) for name in names])
        endless = [name for name, end in zip(names, ends, strict=True) if end == -1]
        if repair:
            await self._link.call_many([("PEXPIRE", prefix + name, _TTL_MS, "NX") for name in endless])
        await tally.add(queue, [(FindingKind.NO_TTL, "", f"{name} has no end", repair) for name in endless])

    async def _check_parked(self, namespace: str, queue: str, tally: _Tally, *, repair: bool) -> None:
        """Compare the count of parked jobs with the lengths of their lines."""
        settings = [keys.settings(namespace, queue)]
        if await self._link.call("ZCARD", keys.parked(namespace, queue)) <= _COUNTED_AT_ONCE:
            await tally.add(queue, await self._audit_parked(self._link, settings, [int(repair)]))
            return
        # One script would keep Redis for seconds. Of lines that change meanwhile nothing can be said: two walks have to agree.
        sums = [await self._count_parked(namespace, queue) for _ in range(2)]
        if sums[0] == sums[1]:
            counted, found = sums[0]
            await tally.add(queue, await self._audit_parked(self._link, settings, [int(repair), f"count:{counted}:{found}"]))

    async def _count_parked(self, namespace: str, queue: str) -> tuple[int, int]:
        """Return how many parked jobs are counted, and how many stand in their lines, read in slices."""
        counted = int(await self._link.call("HGET", keys.counters(namespace, queue), "parked") or 0)
        found = 0
        cursor: Argument = 0
        while True:
            cursor, flat = await self._link.call("ZSCAN", keys.parked(namespace, queue), cursor, "COUNT", _SLICE)
            lines = {keys.parked_line(by.decode(), priority) for by in flat[::2] for priority in Priority}
            prefix = keys.queue(namespace, queue)
            found += sum(await self._link.call_all([("ZCARD", prefix + line) for line in lines]))
            if int(cursor) == 0:
                return counted, found

    async def _check_name(self, namespace: str, queue: str, tally: _Tally, *, repair: bool) -> None:
        names = keys.queues(namespace)
        known, noted = await self._link.call_all([("HGET", names, queue), ("HGET", keys.settings(namespace, queue), "number")])
        carried = tally.numbers.get(queue, set()) | ({noted.decode()} if noted else set())
        if known is None and carried:
            number = int(min(carried), 16)
            if repair:
                await self._registry.name_queue(namespace, queue, number=number)
            await tally.add(queue, [(FindingKind.UNNAMED_QUEUE, "", "it has no name, and no list shows it", repair)])
        for text in sorted(carried):
            holder = await self._link.call("HGET", names, f"#{int(text, 16)}")
            if holder != queue.encode() and (known is not None or repair):
                detail = f"ids of its jobs carry {text}, the number of {'no queue' if holder is None else holder.decode()}"
                await tally.add(queue, [(FindingKind.UNNAMED_QUEUE, "", detail, False)])

    async def _take_back(self, namespace: str, queue: str, tally: _Tally) -> None:
        """Do what nothing has done for jobs whose leases are long over."""
        leases = BATCH if tally.has_found(queue, FindingKind.LEASE_OVERDUE) else 0
        while leases == BATCH:
            leases = (await self._lifecycle.reap(namespace, queue)).leases

    async def _walk_index(self, namespace: str, queue: str, key: str, tally: _Tally, *, repair: bool) -> None:
        where = key.removeprefix(keys.queue(namespace, queue))
        cursor: Argument = 0
        while True:
            cursor, flat = await self._link.call("ZSCAN", key, cursor, "COUNT", _SLICE)
            if flat:
                args = [int(repair), where, *flat[::2]]
                _, *findings = await self._audit(self._link, [keys.settings(namespace, queue)], args)
                await tally.add(queue, findings)
            if int(cursor) == 0:
                return


class _Tally:
    """What an audit has found so far; a job that is met in two walks is found once.

    Attributes:
        numbers: Of each queue, what the ids of its jobs end in.
    """

    def __init__(self, report: Callable[[AuditProgress], Awaitable[None]]) -> None:
        self._report = report
        self._found: set[Finding] = set()
        self.numbers: dict[str, set[str]] = {}
        self._jobs_checked = 0

    def has_found(self, queue: str, kind: FindingKind) -> bool:
        """Tell whether a queue has a finding of a kind."""
        return any(finding.queue == queue and finding.kind is kind for finding in self._found)

    async def add(self, queue: str, findings: Iterable[Sequence[Reply]], checked: int = 0) -> None:
        fresh = []
        for words in findings:
            kind, job_id, detail = (word if isinstance(word, str) else word.decode() for word in words[:3])
            finding = Finding(kind=FindingKind(kind), queue=queue, job_id=job_id, detail=detail, repaired=bool(words[3]))
            if finding not in self._found:
                self._found.add(finding)
                fresh.append(finding)
        self._jobs_checked += checked
        if checked or fresh:
            await self._report(AuditProgress(findings=tuple(fresh), jobs_checked=self._jobs_checked))


def _sorted_by_queue(namespace: str, names: list[bytes]) -> dict[str, list[str]]:
    """Return what follows the prefix of each key, by queue."""
    found: dict[str, list[str]] = {}
    for name in names:
        queue, _, rest = name.decode().removeprefix(keys.all_queues(namespace)[:-1]).partition("}:")
        found.setdefault(queue, []).append(rest)
    return found
