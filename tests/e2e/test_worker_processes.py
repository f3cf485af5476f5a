from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.job import JobState
from gopher.runtime.machine import usable_cpus
from tests.e2e.apps.fragile import FAULT_VARIABLE
from tests.e2e.farm import end_of, states
from tests.waiting import runs, until, until_async

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tests.e2e.farm import Farm
    from tests.programs import Program

POISON: Final = "tests.e2e.apps.poison:registry"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


async def pids_of_workers(farm: Farm) -> set[int]:
    return {worker.description.pid for worker in await farm.store.registry.workers(farm.namespace)}


async def wait_for_workers(farm: Farm, count: int, *, other_than: AbstractSet[int] = frozenset()) -> set[int]:
    """Wait until so many workers run that stand in the register, and return their pids."""
    found: set[int] = set()

    async def are_there() -> bool:
        nonlocal found
        found = {pid for pid in await pids_of_workers(farm) if runs(pid)} - other_than
        return len(found) == count

    await until_async(are_there)
    return found


def ready_lines(program: Program) -> int:
    """Return how often a program that has ended said `ready`, after the first time."""
    count = 0
    while (line := program.next_line()) is not None:
        count += line.startswith("ready ")
    return count


async def test_ready_says_which_types_and_queues_are_served(farm: Farm) -> None:
    """Alike for one process and for the parent of several."""
    for processes in ("1", "2"):
        worker = farm.start_worker("--processes", processes)
        told = await trio.to_thread.run_sync(worker.wait_ready)

        assert told["queues"] == "default"
        assert {"quick", "hold"} < set(told["types"].split(","))


async def test_parent_restarts_a_child_that_died(farm: Farm) -> None:
    """After kill -9 of each child in turn there are two again; `ready` is said once; SIGTERM ends all with 0."""
    parent = await farm.worker("--processes", "2", lease_seconds=1)
    first = await wait_for_workers(farm, 2)

    for pid in first:
        os.kill(pid, signal.SIGKILL)
    second = await wait_for_workers(farm, 2, other_than=first)
    jobs = await farm.finals(await farm.submit("quick", count=10))
    parent.process.terminate()
    code = await end_of(parent)

    assert code == 0
    assert states(jobs) == {JobState.COMPLETED}
    assert ready_lines(parent) == 0
    assert not any(runs(pid) for pid in second)


async def test_auto_runs_one_process_a_usable_cpu(farm: Farm) -> None:
    """As many as the affinity allows stand in the register, and the number is told."""
    parent = await farm.worker("--processes", "auto", "--concurrency", "2-9")

    await wait_for_workers(farm, usable_cpus())

    infos = await farm.store.registry.workers(farm.namespace)
    assert {info.description.slots for info in infos} == {9}
    spawning = [line for line in parent.errors if "worker.spawning" in line]
    assert len(spawning) == (1 if usable_cpus() > 1 else 0)


async def test_children_die_with_a_parent_that_is_killed(farm: Farm) -> None:
    """After kill -9 of the parent no child is left within two seconds."""
    parent = await farm.worker("--processes", "2", lease_seconds=1)
    children = await wait_for_workers(farm, 2)

    parent.process.kill()

    await until(lambda: not any(runs(pid) for pid in children), within_seconds=2)


async def test_drain_reaches_the_jobs_of_all_children(farm: Farm) -> None:
    """SIGTERM to the parent lets the jobs of every child finish."""
    parent = await farm.worker("--processes", "2", "--concurrency", "5")
    ids = await farm.hold(10)
    started = await farm.started(ids)

    parent.process.terminate()
    await until(lambda: sum("worker.draining" in line for line in parent.errors) == 2)
    farm.open_gate()
    code = await end_of(parent)

    assert code == 0
    assert len({event.pid for event in started}) == 2
    assert states(await farm.jobs(ids)) == {JobState.COMPLETED}


async def test_parent_restarts_a_child_that_was_ready_however_often_it_dies(farm: Farm) -> None:
    """Jobs may have killed it, and each of them kills three at most; the other child runs on."""
    parent = await farm.worker("--processes", "2", "--concurrency", "1", lease_seconds=1)
    (job_id,) = await farm.hold()
    (survivor,) = {event.pid for event in await farm.started([job_id])}

    killed: set[int] = set()
    for _ in range(6):
        (victim,) = await wait_for_workers(farm, 1, other_than=killed | {survivor})
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    await wait_for_workers(farm, 1, other_than=killed | {survivor})
    farm.open_gate()
    (job,) = await farm.finals([job_id])

    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert parent.process.poll() is None


async def test_parent_gives_up_on_a_child_that_cannot_start_again(farm: Farm, tmp_path: Path) -> None:
    """Five deaths in a row before it is ready end the whole: the others are drained first, not killed."""
    fault = tmp_path / "fault"
    parent = await farm.worker(
        "--processes", "2", "--concurrency", "1", app="tests.e2e.apps.fragile:registry", variables={FAULT_VARIABLE: str(fault)}
    )
    (job_id,) = await farm.hold()
    (survivor,) = {event.pid for event in await farm.started([job_id])}
    (victim,) = await wait_for_workers(farm, 1, other_than={survivor})

    fault.touch()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: any("worker.draining" in line for line in parent.errors))
    farm.open_gate()
    code = await end_of(parent)

    assert code == 1
    assert parent.errors[-1] == "gopher: a worker process died 5 times before it was ready within 30 s: giving up\n"
    assert states(await farm.jobs([job_id])) == {JobState.COMPLETED}


async def test_parent_replaces_a_child_that_is_stopped(farm: Farm) -> None:
    """SIGSTOP keeps a child from beating: after a lease, or five seconds, it is killed and another takes its place and its jobs."""
    parent = await farm.worker("--processes", "2", "--concurrency", "1", lease_seconds=1)
    ids = await farm.hold(2)
    first = {event.pid for event in await farm.started(ids)}
    victim = min(first)

    os.kill(victim, signal.SIGSTOP)
    await until(lambda: not runs(victim))
    await wait_for_workers(farm, 1, other_than=first)
    farm.open_gate()
    jobs = await farm.finals(ids)

    assert states(jobs) == {JobState.COMPLETED}
    assert sum("worker.silent" in line for line in parent.errors) == 1
    assert await pids_of_workers(farm) >= first - {victim}


async def test_parent_replaces_a_child_whose_interpreter_is_held(farm: Farm) -> None:
    """A handler whose C code keeps the interpreter's lock crashes its attempt, and the next one runs."""
    parent = await farm.worker("--processes", "2", lease_seconds=1, app=POISON)

    first = await wait_for_workers(farm, 2)

    (job,) = await farm.finals(await farm.submit("hold-interpreter"))
    await until(lambda: len([pid for pid in first if runs(pid)]) == 1)
    second = await wait_for_workers(farm, 2)

    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 2, 1)
    assert len(second - first) == 1
    assert sum("worker.silent" in line for line in parent.errors) == 1


async def test_child_whose_loop_is_blocked_is_not_replaced(farm: Farm, tmp_path: Path) -> None:
    """A blocked loop is no silence: the handler runs once, for longer than the silence that is allowed."""
    parent = await farm.worker("--processes", "2", lease_seconds=1)
    (job_id,) = await farm.submit("block", 7)

    (job,) = await farm.finals([job_id])

    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 1, 0)
    assert not any("worker.silent" in line for line in parent.errors)


async def test_thread_that_a_handler_has_left_keeps_no_stopped_child(farm: Farm) -> None:
    """It ends with the drain, with the exit status that says an operator wanted it; the thread is named."""
    parent = await farm.worker("--processes", "2", app=POISON)
    await wait_for_workers(farm, 2)
    await farm.finals(await farm.submit("left-thread", count=20))

    for worker in await farm.store.registry.workers(farm.namespace):
        await farm.store.registry.drain_worker(farm.namespace, worker.id, None)
    code = await end_of(parent)

    assert code == 0
    assert sum("worker.dismissed" in line for line in parent.errors) == 2
    assert any("stop.threads_left" in line and "left-behind" in line for line in parent.errors)


async def test_child_that_exits_like_a_hopeless_one_is_restarted(farm: Farm) -> None:
    """A handler that ends its process with 2 has not made the application impossible to import."""
    parent = await farm.worker("--processes", "2", lease_seconds=1)

    await farm.submit("exit", 2)
    await until(lambda: any("worker.restarting" in line for line in parent.errors))

    assert states(await farm.finals(await farm.submit("quick"))) == {JobState.COMPLETED}
    assert parent.process.poll() is None


async def test_output_of_handlers_is_passed_on(farm: Farm) -> None:
    """What a handler prints, be it `ready`, comes out at the parent, and makes nothing ready."""
    parent = await farm.worker("--processes", "2")

    for words in ("hello", "ready"):
        await farm.finals(await farm.submit("print", words))
    lines = [await trio.to_thread.run_sync(parent.next_line) for _ in range(2)]

    assert lines == ["hello\n", "ready\n"]


async def test_parent_that_is_told_to_go_while_it_starts_goes(farm: Farm) -> None:
    """A signal that comes before any child is ready ends the whole family with 0."""
    parent = farm.start_worker("--processes", "3")
    await until(lambda: bool(children_of(parent.process.pid)))
    children = children_of(parent.process.pid)

    parent.process.terminate()
    code = await end_of(parent)

    assert code == 0
    assert not any(runs(pid) for pid in children)


def children_of(pid: int) -> list[int]:
    """Return the worker processes that a process has started; to import Trio takes a child of another kind for a moment."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if b"--processes=1" in Path(f"/proc/{child}/cmdline").read_bytes()]


async def test_child_that_an_operator_drains_is_not_restarted(farm: Farm) -> None:
    """The others go on; when the last is drained the parent goes too, with 0."""
    parent = await farm.worker("--processes", "2")
    await wait_for_workers(farm, 2)
    first, second = [each.id for each in await farm.store.registry.workers(farm.namespace)]

    await farm.store.registry.drain_worker(farm.namespace, first, None)
    await until(lambda: any("worker.dismissed" in line for line in parent.errors))
    left = [each.id for each in await farm.store.registry.workers(farm.namespace)]
    jobs = await farm.finals(await farm.submit("quick", count=3))
    await farm.store.registry.drain_worker(farm.namespace, second, None)
    code = await end_of(parent)

    assert left == [second]
    assert states(jobs) == {JobState.COMPLETED}
    assert code == 0
    assert not any("worker.restarting" in line for line in parent.errors)
