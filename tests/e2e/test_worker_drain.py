from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from gopher.job import JobState
from tests.e2e.farm import Farm, end_of, states
from tests.waiting import runs, until, until_async

if TYPE_CHECKING:
    from gopher.job import Job
    from tests.programs import Program

GRACE_SECONDS = 1.0


async def sigterm(program: Program) -> int:
    """Ask a program to end; return its exit code.

    What a drain must not wait for lasts longer than `end_of` waits. Seconds are not asserted: on a busy machine the exit of an
    interpreter alone may take several.
    """
    program.process.terminate()
    return await end_of(program)


def unspent(job: Job) -> bool:
    return (job.state, job.attempt, job.crashes, job.attempts) == (JobState.ENQUEUED, 0, 0, ())


async def test_drain_loses_and_charges_nothing(farm: Farm) -> None:
    """Of 100 running jobs half end within the grace; the others are given back and run elsewhere, still as attempt 1."""
    worker = await farm.worker("--concurrency", "100", grace_seconds=GRACE_SECONDS)
    short = await farm.submit("hold", str(farm.gate), count=50)
    long = await farm.submit("hold", str(farm.gate) + "2", count=50)
    await farm.started([*short, *long])

    farm.open_gate()
    code = await sigterm(worker)
    ended, released = await farm.jobs(short), await farm.jobs(long)
    await farm.worker("--concurrency", "100")
    await farm.started(long, 100)
    farm.gate.with_name("gate2").touch()
    rerun = await farm.finals(long)

    assert code == 0
    assert states(ended) == {JobState.COMPLETED}
    assert all(unspent(job) for job in released)
    assert states(rerun) == {JobState.COMPLETED}
    assert {job.attempt for job in rerun} == {1}
    assert len(farm.events("start", [*short, *long])) == 150
    assert len(farm.events("end", [*short, *long])) == 100
    assert await farm.findings() == []


async def test_drain_gives_back_at_once_what_waits_for_a_subprocess(farm: Farm) -> None:
    """Of three jobs of which one can run, two go back unspent while the first is let finish."""
    worker = await farm.worker("--concurrency", "4", "--subprocesses", "1", grace_seconds=600)
    ids = await farm.submit("hold-process", str(farm.gate), count=3)
    (first,) = await farm.started(ids, 1)
    waiting = [job_id for job_id in ids if job_id != first.job]

    async def are_claimed() -> bool:
        return states(await farm.jobs(waiting)) == {JobState.PROCESSING}

    async def are_back() -> bool:
        return all(unspent(job) for job in await farm.jobs(waiting))

    await until_async(are_claimed)
    worker.process.terminate()
    await until_async(are_back)
    farm.open_gate()
    code = await end_of(worker)

    assert code == 0
    assert states(await farm.jobs([first.job])) == {JobState.COMPLETED}
    assert len(farm.events("start", ids)) == 1


async def test_ctrl_c_drains_while_a_handler_computes(farm: Farm) -> None:
    """It is raised in no handler, be it one that keeps the loop: the job completes, and the worker goes with 0."""
    worker = await farm.worker(grace_seconds=600)
    ids = await farm.submit("stall", str(farm.gate))
    await farm.started(ids)

    worker.process.send_signal(signal.SIGINT)
    farm.open_gate()
    code = await end_of(worker)

    assert code == 0
    assert states(await farm.jobs(ids)) == {JobState.COMPLETED}


async def test_second_signal_aborts(farm: Farm) -> None:
    """Whoever cannot wait asks twice: the grace ends, the jobs are given back all the same."""
    worker = await farm.worker(grace_seconds=600)
    ids = await farm.hold(10)
    await farm.started(ids)

    worker.process.terminate()
    await until(lambda: any("worker.draining" in line for line in worker.errors))
    worker.process.send_signal(signal.SIGINT)
    code = await end_of(worker)

    assert code == 0
    assert all(unspent(job) for job in await farm.jobs(ids))


async def test_worker_goes_without_threads_and_processes_that_will_not_end(farm: Farm) -> None:
    """Their jobs are given back unspent, the process exits with 0 in time, and takes the whole family with it."""
    worker = await farm.worker(grace_seconds=GRACE_SECONDS)
    threads = await farm.submit("thread", count=2)
    (family,) = await farm.submit("family", "deaf")
    await farm.started(threads)

    children: list[int] = []

    async def has_children() -> bool:
        (job,) = await farm.jobs([family])
        children[:] = [int(pid) for pid in (job.progress_message or "").split()]
        return bool(children)

    await until_async(has_children)
    code = await sigterm(worker)

    assert code == 0
    assert all(unspent(job) for job in await farm.jobs([*threads, family]))
    await until(lambda: not any(runs(pid) for pid in children))


async def test_idle_worker_goes_at_once(farm: Farm) -> None:
    """With nothing to do a drain needs no grace, and the register forgets the worker."""
    worker = await farm.worker(grace_seconds=600)

    code = await sigterm(worker)

    assert code == 0
    assert await farm.store.registry.workers(farm.namespace) == []


async def test_worker_that_an_operator_drains_goes_as_on_sigterm(farm: Farm) -> None:
    """Only the one that is named: what it runs is given back after the grace that was ordered, and it exits with 0."""
    worker, other = [await farm.worker(grace_seconds=600) for _ in range(2)]
    (named,) = [
        each.id for each in await farm.store.registry.workers(farm.namespace) if each.description.pid == worker.process.pid
    ]
    ids = await farm.hold(20)
    started = await farm.started(ids)
    on_it = [event.job for event in started if event.pid == worker.process.pid]

    await farm.store.registry.drain_worker(farm.namespace, named, 100)
    code = await end_of(worker)
    await farm.started(ids, 20 + len(on_it))
    farm.open_gate()
    jobs = await farm.finals(ids)

    assert code == 0
    assert other.process.poll() is None
    assert states(jobs) == {JobState.COMPLETED}
    assert {job.attempt for job in jobs} == {1}
    assert [each.description.pid for each in await farm.store.registry.workers(farm.namespace)] == [other.process.pid]


async def test_thread_that_a_handler_has_left_keeps_no_stopped_worker(farm: Farm) -> None:
    """Python waits at its end for threads that are no daemons; the worker goes without them, with 0."""
    worker = await farm.worker(grace_seconds=600, app="tests.e2e.apps.poison:registry")
    await farm.finals(await farm.submit("left-thread"))

    code = await sigterm(worker)

    assert code == 0
    assert any("stop.threads_left" in line and "left-behind" in line for line in worker.errors)
