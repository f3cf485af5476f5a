"""The looks: one job, pages of jobs, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gopher.errors import InvalidRequestError, JobNotFoundError, QueueNotFoundError
from gopher.event import EventKind
from gopher.job import JobState, NewJob, Priority
from gopher.limits import Limits
from gopher.store import keys
from gopher.store.query import SCAN_LIMIT
from gopher.store.submission import BATCH, SubmitReceipt
from tests.store.rig import LEASE_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gopher.job import Job
    from gopher.store.store import Store
    from tests.store.rig import Rig

UNKNOWN_ID = "01998c2e-7a00-7000-8000-000000000000"


class Filters:
    """The arguments of a list, and all its pages."""

    def __init__(self, store: Store, namespace: str, **filters: object) -> None:
        self._store = store
        self._namespace = namespace
        self._filters = filters

    async def page(self, size: int, cursor: str | None = None) -> tuple[list[Job], str | None]:
        return await self._store.query.list_jobs(self._namespace, size=size, cursor=cursor, **self._filters)  # type: ignore[arg-type] # the test names them

    async def all(self, size: int) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        for _ in range(1000):
            jobs, cursor = await self.page(size, cursor)
            assert len(jobs) <= size
            found += [job.id for job in jobs]
            if cursor is None:
                return found
        raise AssertionError("the list does not end")


async def submit_many(store: Store, namespace: str, jobs: Sequence[NewJob]) -> list[str]:
    answers = await store.lifecycle.submit(namespace, jobs)
    return [answer.job_id for answer in answers if isinstance(answer, SubmitReceipt)]


# --- get ----------------------------------------------------------------------------------------------------------------------


async def test_get_tells_the_lease_of_a_processing_job(rig: Rig) -> None:
    """The end of the lease is that of the index, as the last extension set it."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim(worker="w")
    await rig.advance(5)
    await rig.extend([(job_id, claimed.token)])

    job = await rig.get(job_id)

    assert (job.lease_ms, job.token, job.worker) == (rig.now_ms + LEASE_MS, claimed.token, "w")
    assert job.started_ms == rig.now_ms - 5


async def test_get_tells_progress(rig: Rig) -> None:
    """What the handler last said of its progress is read back."""
    job_id = await rig.submit()
    (claimed,) = await rig.claim()

    await rig.say(job_id, claimed.token, "a\nb", EventKind.PROGRESS)

    job = await rig.get(job_id)
    assert (job.progress, job.progress_message) == (0.5, "a\nb")


async def test_get_of_an_unknown_job_finds_nothing(rig: Rig) -> None:
    """An id that is well formed but of no job, and text that is no id."""
    await rig.submit()

    with pytest.raises(JobNotFoundError):
        await rig.get(UNKNOWN_ID)
    with pytest.raises(InvalidRequestError):
        await rig.get("no-id")


# --- list ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_list_jobs_gives_every_job_once_however_it_is_cut(rig: Rig, size: int) -> None:
    """All pages together are all jobs of all queues and states, none twice."""
    ids = [await rig.job_in(state) for state in reversed(JobState)]
    ids += await submit_many(rig.store, rig.namespace, [NewJob(type="t", queue=f"q{at % 3}") for at in range(20)])
    ids += [await rig.submit(priority=priority) for priority in Priority]

    found = await Filters(rig.store, rig.namespace).all(size)

    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_list_jobs_is_in_order_also_among_jobs_of_one_moment(store: Store, namespace: str, size: int) -> None:
    """Jobs that were enqueued in the same ms are told apart by their id."""
    # So that Redis has the script: batches that find it missing are sent again, in any order.
    await submit_many(store, namespace, [NewJob(type="t", queue="other")])
    ids = await submit_many(store, namespace, [NewJob(type="t")] * (BATCH + 20))

    found = await Filters(store, namespace, queue="default", state=JobState.ENQUEUED).all(size)

    assert found == ids


async def test_list_jobs_says_that_the_last_page_is_the_last(store: Store, namespace: str) -> None:
    """A page that takes the rest has no cursor, also when it is full."""
    await submit_many(store, namespace, [NewJob(type="t")] * 4)
    filters = Filters(store, namespace, queue="default", state=JobState.ENQUEUED)

    first, cursor = await filters.page(2)
    second, end = await filters.page(2, cursor)

    assert (len(first), len(second), end) == (2, 2, None)


@pytest.mark.parametrize("state", JobState)
async def test_list_jobs_filters_by_state(rig: Rig, state: JobState) -> None:
    """Only jobs of the state are given, with the lease where they have one."""
    ids = {each: await rig.job_in(each) for each in reversed(JobState)}

    jobs, cursor = await Filters(rig.store, rig.namespace, state=state).page(10)

    assert [(job.id, job.state) for job in jobs] == [(ids[state], state)]
    assert cursor is None
    assert (jobs[0].lease_ms is not None) == (state is JobState.PROCESSING)


async def test_list_jobs_filters_by_queue_type_and_labels(store: Store, namespace: str) -> None:
    """All that is asked for must hold; a job may have more labels than asked for."""
    jobs = [
        NewJob(type="a", labels={"x": "1", "y": "2"}),
        NewJob(type="a", labels={"x": "1"}),
        NewJob(type="a", labels={"x": "2", "y": "2"}),
        NewJob(type="b", labels={"x": "1", "y": "2"}),
        NewJob(type="a", labels={"x": "1", "y": "2"}, queue="other"),
        NewJob(type="a"),
    ]
    answers = await store.lifecycle.submit(namespace, jobs)
    ids = [answer.job_id for answer in answers if isinstance(answer, SubmitReceipt)]

    async def places(**filters: object) -> list[int]:
        return sorted(ids.index(job_id) for job_id in await Filters(store, namespace, **filters).all(2))

    assert await places(type="a") == [0, 1, 2, 4, 5]
    assert await places(labels={"x": "1"}) == [0, 1, 3, 4]
    assert await places(queue="default", type="a", labels={"x": "1", "y": "2"}) == [0]
    assert await places(queue="none") == []


async def test_list_jobs_reads_a_bounded_number_of_records_a_call(store: Store, namespace: str) -> None:
    """A filter that fits nothing gives empty pages whose cursors go on, instead of one call that reads it all."""
    await submit_many(store, namespace, [NewJob(type="t")] * (SCAN_LIMIT + 10))
    (needle,) = await submit_many(store, namespace, [NewJob(type="needle")])
    filters = Filters(store, namespace, type="needle")

    first, cursor = await filters.page(10)

    assert (first, cursor is None) == ([], False)
    assert await filters.all(10) == [needle]


async def test_list_jobs_ends_a_page_that_grows_large(store: Store, namespace: str) -> None:
    """A page of large payloads holds fewer jobs, so that a client takes it in one message."""
    ids = await submit_many(store, namespace, [NewJob(type="t", payload=b"x" * 262_144)] * 9)
    filters = Filters(store, namespace)

    first, cursor = await filters.page(9)

    assert 1 <= len(first) <= 5
    assert cursor is not None
    assert sorted(await filters.all(9)) == sorted(ids)


async def sent_bytes(store: Store) -> int:
    """What the Redis of the test has sent in all."""
    text: bytes = await store.link.call("INFO", "stats")
    return int(text.split(b"total_net_output_bytes:")[1].split(b"\r")[0])


async def test_list_jobs_reads_no_more_records_than_a_page_has_room_for(store: Store, namespace: str) -> None:
    """Of the largest payloads one record more than a page holds, not a slice of them; and pages together give every job once."""
    ids = await submit_many(store, namespace, [NewJob(type="t", payload=b"x" * 1_048_576)] * 8)
    filters = Filters(store, namespace)
    before = await sent_bytes(store)

    first, _ = await filters.page(8)

    assert await sent_bytes(store) - before < 3 << 20
    assert len(first) == 1
    assert sorted(await filters.all(8)) == sorted(ids)


async def test_list_jobs_does_not_read_records_that_it_leaves_out(store: Store, namespace: str) -> None:
    """A filter by type or labels costs no payloads of other jobs."""
    await submit_many(store, namespace, [NewJob(type="t", payload=b"x" * 1_048_576)] * 8)
    (needle,) = await submit_many(store, namespace, [NewJob(type="u", labels={"k": "v"})])
    before = await sent_bytes(store)

    by_type = await Filters(store, namespace, type="u").all(10)
    by_labels = await Filters(store, namespace, labels={"k": "v"}).all(10)

    assert by_type == by_labels == [needle]
    assert await sent_bytes(store) - before < 1 << 20


async def test_list_jobs_is_not_put_off_by_jobs_that_leave(rig: Rig) -> None:
    """Jobs that leave the index between two pages, even the one the cursor names, neither hide nor repeat the others."""
    ids = []
    for _ in range(6):
        ids += [await rig.submit(), await rig.submit()]
        await rig.advance(1)
    filters = Filters(rig.store, rig.namespace, state=JobState.ENQUEUED)
    first, cursor = await filters.page(5)

    await rig.claim(5)
    second, cursor = await filters.page(4, cursor)
    await rig.store.lifecycle.delete(rig.namespace, second[-1].id)
    third, end = await filters.page(9, cursor)

    assert [job.id for job in (*first, *second, *third)] == ids
    assert end is None


async def test_list_jobs_passes_over_ids_that_have_no_record_or_another_state(rig: Rig) -> None:
    """What the audit would find is not shown as a job."""
    good = await rig.submit()
    await rig.call("ZADD", "enqueued:normal", 5, UNKNOWN_ID)
    moved = await rig.job_in(JobState.SCHEDULED)
    await rig.call("ZADD", "enqueued:normal", 6, moved)

    found = await Filters(rig.store, rig.namespace, state=JobState.ENQUEUED).all(1)
    await rig.audit(repair=True)

    assert found == [good]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "[]",
        "null",
        '["default"]',
        '["default","enqueued:none","",""]',
        '["default","failed","",""]',
        "[1,2,3,4]",
        "[" * 1000,
    ],
)
async def test_list_jobs_refuses_a_cursor_that_is_not_its_own(store: Store, namespace: str, cursor: str) -> None:
    """A made-up cursor, and one of a list of another state, are the caller's fault."""
    with pytest.raises(InvalidRequestError) as caught:
        await store.query.list_jobs(namespace, state=JobState.ENQUEUED, size=1, cursor=cursor)

    assert caught.value.violations[0].reason == "BAD_PAGE_TOKEN"


# --- figures ------------------------------------------------------------------------------------------------------------------


async def test_queue_stats_count_what_is_there_and_what_was(rig: Rig) -> None:
    """Counts are of now, by state and by line; totals are since ever."""
    for state in reversed(JobState):
        await rig.job_in(state)
    await rig.submit(priority=Priority.HIGH)
    await rig.submit(priority=Priority.LOW)
    gone = await rig.job_in(JobState.CANCELLED)
    await rig.store.lifecycle.delete(rig.namespace, gone)

    stats = await rig.store.query.queue_stats(rig.namespace, rig.queue)

    assert stats.counts == {**dict.fromkeys(JobState, 1), JobState.ENQUEUED: 3}
    assert stats.enqueued == {Priority.HIGH: 1, Priority.NORMAL: 1, Priority.LOW: 1}
    assert (stats.name, stats.paused) == (rig.queue, False)
    assert (stats.submitted_total, stats.completed_total, stats.failed_total) == (10, 1, 1)
    assert (stats.cancelled_total, stats.retried_total) == (2, 1)


async def test_queue_stats_of_a_queue_that_is_empty_and_paused(store: Store, namespace: str) -> None:
    """An empty queue has no oldest job, and says that it is paused."""
    await store.lifecycle.pause(namespace, "q")

    stats = await store.query.queue_stats(namespace, "q")

    assert stats.paused
    assert stats.oldest_wait_ms is None
    assert set(stats.counts.values()) == {0}
    assert stats.submitted_total == 0


async def test_queue_stats_tell_how_long_the_oldest_job_has_waited(store: Store, namespace: str) -> None:
    """The oldest of the heads of the lines counts, by the clock of Redis."""
    await store.lifecycle.submit(namespace, [NewJob(type="t", priority=priority) for priority in Priority])
    (head,) = await store.link.call("ZRANGE", keys.enqueued(namespace, "default", Priority.LOW), 0, 0)
    await store.link.call("ZINCRBY", keys.enqueued(namespace, "default", Priority.LOW), -60_000, head)

    stats = await store.query.queue_stats(namespace, "default")

    assert stats.oldest_wait_ms is not None
    assert 60_000 <= stats.oldest_wait_ms < 90_000


async def test_queue_stats_of_an_unknown_queue_are_refused(store: Store, namespace: str) -> None:
    """A queue that nobody has used has no figures."""
    with pytest.raises(QueueNotFoundError):
        await store.query.queue_stats(namespace, "none")


async def test_queues_are_those_that_were_used(store: Store, namespace: str) -> None:
    """A queue is listed from its first job on."""
    await submit_many(store, namespace, [NewJob(type="t", queue="b"), NewJob(type="t", queue="a")])

    assert await store.query.queues(namespace) == ["a", "b"]


async def test_redis_stats_are_those_of_the_server(store: Store) -> None:
    """Version, memory, clients and age are read from INFO."""
    stats = await store.query.redis_stats()

    major, _, _ = stats.version.partition(".")
    assert int(major) >= 7
    assert stats.used_memory_bytes > 100_000
    assert (stats.max_memory_bytes, stats.maxmemory_policy) == (0, "noeviction")
    assert stats.connected_clients >= 1
    assert stats.uptime_seconds >= 0


async def test_list_shows_each_of_many_held_back_jobs_once(rig: Rig) -> None:
    """Under a limit a key each key has lines of its own, whose names are read in slices, from page to page."""
    await rig.store.limits.set_limits(rig.namespace, rig.queue, "email", Limits(concurrency_per_key=1))
    jobs = [NewJob(type="email", queue=rig.queue, limit_key=f"key-{at % 300}") for at in range(600)]
    await rig.store.lifecycle.submit(rig.namespace, jobs)
    for _ in range(12):
        await rig.claim(100)
    listed: list[str] = []
    cursor = None

    while True:
        page, cursor = await rig.store.query.list_jobs(rig.namespace, state=JobState.ENQUEUED, size=70, cursor=cursor)
        listed += [job.id for job in page]
        if cursor is None:
            break

    parked = int(await rig.call("HGET", "counters", "parked"))
    assert parked >= 250
    assert (
        len(listed)
        == len(set(listed))
        == (await rig.store.query.queue_stats(rig.namespace, rig.queue)).counts[JobState.ENQUEUED]
    )
