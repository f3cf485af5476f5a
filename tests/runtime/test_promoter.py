from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio

from gopher.errors import StoreUnavailableError
from gopher.handlers import Registry
from gopher.job import JobState
from gopher.runtime.claimer import Claimer
from gopher.runtime.inspector import Inspector
from gopher.runtime.listener import Listener
from gopher.runtime.orphans import Orphans
from gopher.runtime.promoter import Promoter
from gopher.runtime.scheduler import Scheduler
from gopher.runtime.scopes import Scopes
from gopher.store.type_set import ANY_TYPE
from tests.runtime.parts import submit
from tests.runtime.rig import no_gates
from tests.waiting import until_async

if TYPE_CHECKING:
    from gopher.store.store import Store
    from gopher.store.upkeep_results import Promotion

pytestmark = pytest.mark.leaves_keys  # jobs are left waiting


async def is_enqueued(store: Store, namespace: str, job_id: str) -> bool:
    return (await store.query.get(namespace, job_id)).state is JobState.ENQUEUED


def promoter_of(store: Store, namespace: str, *, poll_seconds: float = 3600.0) -> Promoter:
    return Promoter(store.lifecycle, namespace=namespace, queue="default", poll_seconds=poll_seconds)


async def test_promoter_sleeps_until_the_next_job_is_due(store: Store, namespace: str) -> None:
    """It sleeps as long as Redis says, or as long as the poll, whichever is shorter."""
    promoter = promoter_of(store, namespace)

    with_none = await promoter.tick()
    await submit(store, namespace, delay_ms=60_000)
    with_one = await promoter.tick()

    assert 3600 * 0.8 <= with_none <= 3600 * 1.2
    assert 50 < with_one <= 60


async def test_promoter_enqueues_a_job_when_its_time_has_come(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """A scheduled job becomes claimable with nobody's help."""
    (job_id,) = await submit(store, namespace, delay_ms=50)

    await nursery.start(promoter_of(store, namespace).run)

    await until_async(lambda: is_enqueued(store, namespace, job_id))


async def test_promoter_reports_a_job_whose_deadline_has_passed(store: Store, namespace: str) -> None:
    """A dead letter that no worker has ever run is a line for operators too."""
    job_id = await submit(store, namespace, deadline_ms=1)

    with structlog.testing.capture_logs() as logs:
        await promoter_of(store, namespace).tick()

    assert [(entry["event"], entry["job_id"], entry["reason"]) for entry in logs] == [("job.failed", job_id[0], "EXPIRED")]


async def test_promoter_is_woken_by_an_earlier_job(store: Store, namespace: str, nursery: trio.Nursery) -> None:
    """What comes in later and is due sooner does not wait for what was there before."""
    await submit(store, namespace, delay_ms=3_600_000)
    promoter = promoter_of(store, namespace)
    claimer = Claimer(
        store.lifecycle,
        Scopes(),
        no_gates(),
        types=ANY_TYPE,
        namespace=namespace,
        worker="w",
        slots=1,
        lease_seconds=30.0,
        poll_seconds=3600.0,
    )
    listener = Listener(
        control=store.control,
        namespace=namespace,
        queue="default",
        claimer=claimer,
        promoter=promoter,
        scheduler=Scheduler(store.schedules, namespace=namespace, queue="default"),
        scopes=Scopes(),
        orphans=Orphans(store.families, store.lifecycle, namespace=namespace, queue="default", sweep_seconds=3600),
        inspector=Inspector(store.trees, Registry(), Scopes(), namespace=namespace, queue="default"),
        drain=lambda _worker, _grace: None,
    )
    await listener.start()
    await nursery.start(promoter.run)
    await trio.testing.wait_all_tasks_blocked()

    (job_id,) = await submit(store, namespace, delay_ms=50)

    await until_async(lambda: is_enqueued(store, namespace, job_id))


async def test_promoter_goes_on_after_a_failure(
    store: Store, namespace: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis being away delays what is due, and no more."""
    promote = store.lifecycle.promote
    failures = [StoreUnavailableError("gone")] * 2

    async def fail_first(namespace: str, queue: str) -> Promotion:
        if failures:
            raise failures.pop()
        return await promote(namespace, queue)

    monkeypatch.setattr(store.lifecycle, "promote", fail_first)
    (job_id,) = await submit(store, namespace, delay_ms=1)

    await nursery.start(promoter_of(store, namespace, poll_seconds=0.01).run)

    await until_async(lambda: is_enqueued(store, namespace, job_id))
    assert failures == []
