"""What is tried: a function a check, which raises `ConformanceError` with what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from gopher.conformance.stage import PATIENCE_SECONDS, SLOTS, ConformanceError, Note, Stage
from gopher.event import EventKind, LogLine, OutputChunk
from gopher.job import BYTES_CONTENT_TYPE, JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gopher.job import Job, JsonValue

LEASE_SECONDS: Final = 30.0
SHORT_LEASE_SECONDS: Final = 2.0
CUT_SECONDS: Final = 5.0
CANCEL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something that a worker has to do.

    Attributes:
        name: For people and `--only`.
        claim: What it has to do.
        body: Tries it.
        lease_seconds: Of the servers.
    """

    name: str
    claim: str
    body: Callable[[Stage], Awaitable[None]]
    lease_seconds: float


CHECKS: Final[list[Check]] = []


def check(claim: str, *, lease_seconds: float = LEASE_SECONDS) -> Callable[[Callable[[Stage], Awaitable[None]]], Check]:
    """Add a check, named after its function."""

    def add(body: Callable[[Stage], Awaitable[None]]) -> Check:
        added = Check(body.__name__.replace("_", "-"), claim, body, lease_seconds)
        CHECKS.append(added)
        return added

    return add


def require(holds: bool, otherwise: str) -> None:
    """Raise unless a claim holds."""
    if not holds:
        raise ConformanceError(otherwise)


def require_completed(job: Job, *, attempt: int = 1) -> None:
    """Raise unless a job was completed by its n-th attempt, none before it lost."""
    seen = f"the job is {job.state} after attempt {job.attempt} and {job.crashes} lost ones"
    require((job.state, job.attempt, job.crashes) == (JobState.COMPLETED, attempt, 0), f"{seen}: {job.failure}")


def require_once(stage: Stage, job_id: str) -> None:
    """Raise if a job was begun more often than once."""
    begun = [note for note in stage.notes("begin") if note.job_id == job_id]
    require(len(begun) == 1, f"the handler was begun {len(begun)} times: {begun}")


@check("a job's payload reaches its handler, and the result comes back as it is")
async def echo(stage: Stage) -> None:
    """JSON that a careless number or encoder would spoil."""
    payload: JsonValue = {
        "text": "h\u00e9llo \u4e16\u754c",
        "list": [],
        "nothing": None,
        "number": 1.5,
        "nested": {"a": [1, 2, 3]},
    }
    payloads: list[JsonValue] = [payload, [], "x", 0, None]
    job_ids = [await stage.submit("echo", each) for each in payloads]
    for job_id, expected in zip(job_ids, payloads, strict=True):
        require_completed(await stage.final(job_id))
        async with stage.client() as client:
            found = await client.result(job_id, wait=1)
        require(found == expected, f"the result of {expected!r} is {found!r}")


@check("its hello tells its types, its slots and its version")
async def hello(stage: Stage) -> None:
    """What people see of a worker."""
    (worker,) = await stage.workers()
    wanted = {f"conformance.{each}" for each in ("echo", "fail", "big", "slow", "progress")}
    require(wanted <= set(worker.types), f"of the types {sorted(wanted)} it has told {sorted(worker.types)}")
    require(worker.slot_count == SLOTS, f"it has told {worker.slot_count} slots; GOPHER_CONCURRENCY is {SLOTS}")
    require(bool(worker.version), "it has told no version")


@check("a failure is told with its reason; the next attempt runs, and may succeed")
async def failure(stage: Stage) -> None:
    """Two failures, then a result; and one that is final."""
    job_id = await stage.submit("fail", {"times": 2, "reason": "FLAKY"}, backoff_initial_seconds=0.05, max_attempts=5)
    final_id = await stage.submit("fail", {"times": 9, "reason": "HOPELESS", "final": True}, max_attempts=5)
    job, final_job = await stage.final(job_id), await stage.final(final_id)
    require_completed(job, attempt=3)
    reasons = [attempt.failure.reason for attempt in job.attempts if attempt.failure]
    require(reasons == ["FLAKY", "FLAKY"], f"the failed attempts have the reasons {reasons}")
    seen = f"is {final_job.state} after attempt {final_job.attempt}: {final_job.failure}"
    require((final_job.state, final_job.attempt) == (JobState.FAILED, 1), f"a job that failed for good {seen}")
    require(final_job.failure is not None and final_job.failure.reason == "HOPELESS", f"a job that failed for good {seen}")


@check("a result that is refused as too large fails the job, once, and the worker goes on")
async def result_too_large(stage: Stage) -> None:
    """The answer to the outcome says what is wrong; the attempt has to be settled otherwise."""
    job = await stage.final(await stage.submit("big", {"bytes": 100_000}, max_attempts=5))
    require(job.state is JobState.FAILED, f"the job is {job.state}")
    require((job.attempt, job.crashes) == (1, 0), f"it took {job.attempt} attempts, of which {job.crashes} were lost")
    require_completed(await stage.final(await stage.submit("echo", 1)))


@check("it runs as many jobs at once as it has slots, never more, and gives credit again")
async def credit(stage: Stage) -> None:
    """Many more jobs than slots."""
    job_ids = [await stage.slow(0.3) for _ in range(5 * SLOTS)]
    for job_id in job_ids:
        require_completed(await stage.final(job_id))
        require_once(stage, job_id)
    running = most = 0
    for note in stage.notes("begin", "end"):
        running += 1 if note.word == "begin" else -1
        most = max(most, running)
    require(most == SLOTS, f"at most {most} jobs ran at once; it has {SLOTS} slots")


@check("a job of a type that it has not told is left to other workers")
async def unknown_type(stage: Stage) -> None:
    """It never gets one, and is not disturbed."""
    strange = await stage.submit("unheard-of", None)
    require_completed(await stage.final(await stage.submit("echo", 1)))
    job = await stage.job(strange)
    require(not job.state.is_final and job.attempt == 0, f"the job is {job.state} after {job.attempt} attempts")


@check("progress, log and output are told while the handler runs")
async def reports(stage: Stage) -> None:
    """To one who watches the job from its start, in the order in which they were said."""
    job_id = await stage.submit("progress", {"seconds": 1.0}, delay_seconds=1.0)
    told: list[object] = []
    with trio.move_on_after(PATIENCE_SECONDS):
        async with stage.client() as client:
            async for event in client.watch(job_id):
                if event.kind is EventKind.PROGRESS:
                    require(event.state is JobState.PROCESSING, "progress was told of a job that does not run")
                    told.append((event.progress, event.progress_message))
                elif event.detail is not None:
                    told.append(event.detail)
    require_completed(await stage.final(job_id))
    expected = [(0.5, "half"), LogLine("warning", "half is done"), OutputChunk(b"a chunk", BYTES_CONTENT_TYPE)]
    require(told == expected, f"what was told is {told}")


@check("a cancel ends the handler at once, and is acknowledged when it has ended")
async def cancel(stage: Stage) -> None:
    """The job is cancelled within the time, and its slot is free again."""
    job_ids = [await stage.slow(120.0) for _ in range(SLOTS)]
    for job_id in job_ids:
        await stage.begun(job_id)
    async with stage.client() as client:
        for job_id in job_ids:
            await client.cancel(job_id, reason="conformance", grace=1.0)
    for job_id in job_ids:
        job = await stage.final(job_id, CANCEL_SECONDS)
        require(job.state is JobState.CANCELLED, f"the job is {job.state}")
        require(Note("cancelled", job_id, 1) in stage.notes(), "it was acknowledged before the handler had ended")
    require_completed(await stage.final(await stage.submit("echo", 1)))


@check("a job that takes longer than its lease keeps it", lease_seconds=SHORT_LEASE_SECONDS)
async def extend(stage: Stage) -> None:
    """Three leases long; and the worker is not taken for silent before that, while it has nothing to do."""
    await trio.sleep(2 * SHORT_LEASE_SECONDS)
    job_id = await stage.slow(3 * SHORT_LEASE_SECONDS)
    require_completed(await stage.final(job_id))
    require_once(stage, job_id)


@check("an attempt whose lease can be extended no more is ended before it may run elsewhere", lease_seconds=SHORT_LEASE_SECONDS)
async def silence(stage: Stage) -> None:
    """Nothing comes through for three leases; then the job runs again, and the worker is back."""
    await _outlast_leases(stage, stage.silence)


@check("so is one whose lease ends while no server can be reached", lease_seconds=SHORT_LEASE_SECONDS)
async def long_cut(stage: Stage) -> None:
    """Connections are refused for three leases."""
    await _outlast_leases(stage, stage.cut)


async def _outlast_leases(stage: Stage, part: Callable[[], None]) -> None:
    """Part the worker from the servers, and see what it does with the attempt that it holds."""
    job_id = await stage.slow(4 * SHORT_LEASE_SECONDS)
    await stage.begun(job_id)
    part()
    note = Note("cancelled", job_id, 1)
    await stage.until(lambda: _is_noted(stage, note), "the attempt goes on without its lease", SHORT_LEASE_SECONDS + 1)
    await trio.sleep(2 * SHORT_LEASE_SECONDS)
    stage.restore()
    job = await stage.final(job_id, 60.0)
    require((job.state, job.attempt) == (JobState.COMPLETED, 2), f"the job is {job.state} after attempt {job.attempt}")
    words = [note.word for note in stage.notes() if note.job_id == job_id]
    require(words == ["begin", "cancelled", "begin", "end"], f"its handlers did {words}")


async def _is_noted(stage: Stage, note: Note) -> bool:
    await trio.lowlevel.checkpoint()
    return note in stage.notes()


@check("a cut of 5 s ends nothing: it goes on as the same worker, outcomes of the time of the cut count, nothing runs twice")
async def cut(stage: Stage) -> None:
    """One job ends during the cut, others after it, and some are submitted meanwhile."""
    (before,) = await stage.workers()
    during, beyond = await stage.slow(CUT_SECONDS / 2), await stage.slow(CUT_SECONDS + 3)
    await stage.begun(during)
    await stage.begun(beyond)
    stage.cut()
    waiting = [await stage.slow(0.1) for _ in range(2 * SLOTS)]
    await trio.sleep(CUT_SECONDS)
    stage.restore()
    for job_id in (during, beyond, *waiting):
        job = await stage.final(job_id, 60.0)
        require_completed(job)
        require_once(stage, job_id)
        require(job.attempts[-1].worker == before.id, f"{before.id} came back as {job.attempts[-1].worker}")


@check("cut again and again under load, every job runs once")
async def many_cuts(stage: Stage) -> None:
    """Short cuts, at whatever moment: assignments and outcomes are on their way."""
    job_ids = []
    for _ in range(8):
        job_ids += [await stage.slow(0.05) for _ in range(10)]
        stage.cut()
        await trio.sleep(0.1)
        stage.restore()
        await trio.sleep(0.4)
    for job_id in job_ids:
        require_completed(await stage.final(job_id, 60.0))
        require_once(stage, job_id)


@check("when its server is killed it goes to the other, and nothing runs twice")
async def server_killed(stage: Stage) -> None:
    """SIGKILL, with jobs that run, jobs that end meanwhile, and jobs that wait."""
    lasting, ending = await stage.slow(5.0), await stage.slow(0.5)
    await stage.begun(lasting)
    await stage.begun(ending)
    server = stage.connected()
    server.is_alive = False
    server.program.kill()
    waiting = [await stage.slow(0.1) for _ in range(2 * SLOTS)]
    for job_id in (lasting, ending, *waiting):
        require_completed(await stage.final(job_id, 60.0))
        require_once(stage, job_id)


@check("told to drain it finishes what it runs, takes nothing more, leaves, and ends with exit code 0")
async def drain(stage: Stage) -> None:
    """An operator's order."""
    job_id = await stage.slow(1.5)
    await stage.begun(job_id)
    (worker,) = await stage.workers()
    async with stage.client() as client:
        await client.drain_worker(worker.id)
    await trio.sleep(0.5)
    late = await stage.slow(0.1)
    code = await stage.worker.wait_end(20.0)
    require(code == 0, "it does not end" if code is None else f"its exit code is {code}")
    require_completed(await stage.job(job_id))
    require(not await stage.workers(), "it has not left: it still stands in the register")
    require((await stage.job(late)).state is JobState.ENQUEUED, "it took a job after the order to drain")
