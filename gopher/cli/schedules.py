"""The commands below `schedule`: create, list, pause, resume, trigger, delete, preview."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gopher.cli import output
from gopher.cli.arguments import Labels, Moment, Retries, Seconds, labels_of, payload_of
from gopher.cli.report import short_moment
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.cron import zone as cron_zone
from gopher.wire.shape import moment, schedule_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gopher.schedule import Schedule

Queue = Annotated[str | None, Parameter(["--queue", "-q"])]


def create(
    name: str,
    cron: str,
    job_type: Annotated[str, Parameter(["--type", "-t"])],
    *,
    payload: Annotated[str, Parameter(["--payload", "-p"], allow_leading_hyphen=True, metavar="JSON|@FILE|-")] = "null",
    queue: Queue = None,
    time_zone: Annotated[str | None, Parameter(["--time-zone", "--tz"])] = None,
    jitter: Seconds = None,
    overlap: Literal["skip", "queue", "cancel-previous"] | None = None,
    catch_up: Literal["none", "last", "all"] | None = None,
    priority: Literal["high", "normal", "low"] | None = None,
    retries: Retries = None,
    timeout: Seconds = None,
    retention: Seconds = None,
    label: Labels = None,
    content_type: Literal["application/json", "application/octet-stream"] = "application/json",
    target: Target = DEFAULT_TARGET,
) -> None:
    """Submit a job again and again, when a cron expression says so; print when it is first.

    Args:
        name: Of the schedule; unique in its queue.
        cron: Five fields ("0 2 * * MON-FRI"), or @hourly, @daily, @weekly, @monthly, @yearly.
        job_type: Which handler.
        payload: The input: JSON, or @FILE to read it from a file, or - for standard input.
        queue: Where its jobs wait; default: default.
        time_zone: In which the expression is read, as Europe/Berlin; default: UTC.
        jitter: Each firing is put off by up to this long.
        overlap: What a firing does while the last job has not ended; default: skip.
        catch_up: What becomes of firings that no worker was there for; default: last.
        priority: Which line of the queue; default: normal.
        retries: How often a failed attempt is followed by another, 0 to 99; default: what the handler declares.
        timeout: Longest run of one attempt.
        retention: How long each job is kept once completed or cancelled; default: 1 hour.
        label: May be given more than once.
        content_type: What the payload is; JSON is passed to the handler decoded.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        schedule = client.create_schedule(
            name,
            cron,
            job_type,
            payload_of(payload),
            queue=queue,
            time_zone=time_zone,
            jitter_seconds=jitter,
            overlap=None if overlap is None else overlap.replace("-", "_"),
            catch_up=catch_up,
            priority=priority,
            max_attempts=None if retries is None else retries + 1,
            timeout_seconds=timeout,
            retention_seconds=retention,
            labels=labels_of(label),
            content_type=content_type,
        )
    _tell(schedule, as_json=target.json)


def list_schedules(*, queue: Queue = None, limit: int = 100, target: Target = DEFAULT_TARGET) -> None:
    """List schedules by queue and name.

    Args:
        queue: Only of this queue.
        limit: At most so many; 0: all there are.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        found = client.list_schedules(queue=queue, limit=limit or None)
    if target.json:
        for schedule in found:
            output.json_line(schedule_object(schedule))
    else:
        _tell_all(found)


def pause(name: str, /, *, queue: Queue = None, target: Target = DEFAULT_TARGET) -> None:
    """Keep a schedule from firing.

    Args:
        name: Which.
        queue: Its queue; default: default.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        _tell(client.pause_schedule(name, queue=queue), as_json=target.json)


def resume(name: str, /, *, queue: Queue = None, target: Target = DEFAULT_TARGET) -> None:
    """Let a paused schedule fire again; what it missed is not made up for.

    Args:
        name: Which.
        queue: Its queue; default: default.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        _tell(client.resume_schedule(name, queue=queue), as_json=target.json)


def trigger(name: str, /, *, queue: Queue = None, target: Target = DEFAULT_TARGET) -> None:
    """Make a job of a schedule now, and print its id; the schedule's times stay as they are.

    Args:
        name: Which.
        queue: Its queue; default: default.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        job_id = client.trigger_schedule(name, queue=queue)
    if target.json:
        output.json_line({"name": name, "job_id": job_id})
    else:
        output.line(job_id)


def delete(name: str, /, *, queue: Queue = None, target: Target = DEFAULT_TARGET) -> None:
    """Remove a schedule, for good; the jobs it made stay.

    Args:
        name: Which.
        queue: Its queue; default: default.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        client.delete_schedule(name, queue=queue)
    if target.json:
        output.json_line({"name": name, "deleted": True})
    else:
        output.line("deleted")


def preview(
    name: str | None = None,
    /,
    *,
    cron: str | None = None,
    time_zone: Annotated[str | None, Parameter(["--time-zone", "--tz"])] = None,
    queue: Queue = None,
    count: int = 10,
    after: Moment = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Show when a schedule fires next; with --cron, when one would.

    Args:
        name: Which.
        cron: An expression in place of a name.
        time_zone: In which the expression is read, and the times are shown; default: UTC.
        queue: The schedule's queue; default: default.
        count: How many times, at most 100.
        after: From when on; default: now.
        target: Which server, and how to answer.
    """
    with target.connect() as client:
        times = client.schedule_times(name, cron=cron, time_zone=time_zone, queue=queue, count=count, after=after)
        zone = client.get_schedule(name, queue=queue).time_zone if name and time_zone is None else time_zone
    for each in times:
        if target.json:
            output.json_line({"fire_time": moment(each)})
        else:
            output.line(_local(each, zone))


def _local(ms: int, zone: str | None) -> str:
    """Return a moment as a clock in the zone shows it, with its distance from UTC."""
    if zone in {None, "UTC"}:
        return moment(ms) or ""
    return datetime.fromtimestamp(ms / 1000, cron_zone(str(zone))).isoformat()


def _tell(schedule: Schedule, *, as_json: bool) -> None:
    if as_json:
        output.json_line(schedule_object(schedule))
    else:
        output.line("paused" if schedule.paused else f"next {moment(schedule.next_ms) or 'never'}")


def _tell_all(schedules: Iterable[Schedule]) -> None:
    output.table(
        ("NAME", "QUEUE", "TYPE", "CRON", "TIME ZONE", "NEXT", "LAST", "FIRED", "SKIPPED"),
        (
            (
                each.name,
                each.job.queue,
                each.job.type,
                each.cron,
                each.time_zone,
                "paused" if each.paused else short_moment(each.next_ms, "never"),
                short_moment(each.last_fire_ms),
                str(each.fired_total),
                str(each.skipped_total),
            )
            for each in schedules
        ),
        spare=("SKIPPED", "FIRED", "LAST", "QUEUE", "TIME ZONE", "NEXT"),
    )
