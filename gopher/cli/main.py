"""The program `gopher`: every command by name, each loaded only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Group, Parameter

from gopher import config
from gopher.cli import output
from gopher.cli.examples import epilogue_of
from gopher.cli.options import new_app, run_program

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP: Final = "Submit jobs, look at them, steer them, and run Gopher."

COMMANDS: Final = {
    "Jobs": (
        ("submit", "gopher.cli.submit:submit", "Submit a job and print its id."),
        ("get", "gopher.cli.jobs:get", "Show a job."),
        ("why", "gopher.cli.jobs:why", "Show why a job waits, and what would change it."),
        ("tree", "gopher.cli.tree:tree", "Show what a job does at this moment."),
        ("watch", "gopher.cli.jobs:watch", "Show each change of a job until its end."),
        ("cancel", "gopher.cli.jobs:cancel", "End a job as cancelled."),
        ("retry", "gopher.cli.jobs:retry", "Give a failed or cancelled job new attempts."),
        ("delete", "gopher.cli.jobs:delete", "Remove a job, for good."),
        ("list", "gopher.cli.jobs:list_jobs", "List jobs."),
        ("list-failed", "gopher.cli.jobs:list_failed", "List the dead letters."),
        ("retry-all", "gopher.cli.bulk:retry_all", "Give all dead letters new attempts."),
        ("purge-failed", "gopher.cli.bulk:purge_failed", "Remove dead letters, for good."),
    ),
    "Queues": (
        ("queues", "gopher.cli.queues:queues", "List the queues with their figures."),
        ("pause", "gopher.cli.queues:pause", "Stop claims from a queue."),
        ("resume", "gopher.cli.queues:resume", "Let claims from a queue go on."),
        ("purge", "gopher.cli.queues:purge", "Remove every waiting job of a queue, for good."),
        ("update-queue", "gopher.cli.limits:update_queue", "Change a queue's priority ratio or limits."),
        ("rate-limit", "gopher.cli.limits:rate_limit", "Limit how many jobs of a type start or run."),
    ),
    "Operations": (
        ("stats", "gopher.cli.stats:stats", "Show the figures of the queues, the job types, the workers and Redis."),
        ("workers", "gopher.cli.admin:workers", "List the workers that live."),
        ("drain", "gopher.cli.admin:drain", "Let a worker finish what it runs, and go."),
        ("breakers", "gopher.cli.limits:breakers", "List the circuit breakers, or steer one."),
        ("types", "gopher.cli.admin:types", "List the types that are known."),
        ("health", "gopher.cli.admin:health", "Tell whether the server serves."),
    ),
}

SCHEDULE_COMMANDS: Final = (
    ("create", "gopher.cli.schedules:create", "Submit a job again and again, when a cron expression says so."),
    ("list", "gopher.cli.schedules:list_schedules", "List schedules."),
    ("pause", "gopher.cli.schedules:pause", "Keep a schedule from firing."),
    ("resume", "gopher.cli.schedules:resume", "Let a paused schedule fire again."),
    ("trigger", "gopher.cli.schedules:trigger", "Make a job of a schedule now."),
    ("delete", "gopher.cli.schedules:delete", "Remove a schedule, for good."),
    ("preview", "gopher.cli.schedules:preview", "Show when a schedule fires next, or when a cron expression would."),
)

BULK_COMMANDS: Final = (
    ("cancel", "gopher.cli.bulk:cancel", "End every job that matches as cancelled."),
    ("retry", "gopher.cli.bulk:retry", "Give every dead letter that matches new attempts."),
    ("delete", "gopher.cli.bulk:delete", "Remove every job that matches, for good."),
    ("list", "gopher.cli.bulk:list_bulk", "List the bulk operations, the last one first."),
    ("get", "gopher.cli.bulk:get", "Show a bulk operation."),
    ("watch", "gopher.cli.bulk:watch", "Show how far a bulk operation has come until its end."),
    ("stop", "gopher.cli.bulk:stop", "End a bulk operation; what it has done stays done."),
)

Rest = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


def dev(*rest: Rest) -> int:
    """Run everything on this machine: an embedded Redis, the server and a worker."""
    from gopher.cli.dev import run

    return run_program(config.DEV, run, rest)


def server(*rest: Rest) -> int:
    """Run the server, as gopher-server does."""
    from gopher.cli.server import run

    return run_program(config.SERVER, run, rest)


def worker(*rest: Rest) -> int:
    """Run a worker, as gopher-worker does."""
    from gopher.cli.worker import run

    return run_program(config.WORKER, run, rest)


def make_app() -> App:
    """Return the application."""
    app = new_app("gopher", HELP, epilogue=output.EXIT_CODES)
    programs = Group("Programs", sort_key=1)
    for program in (dev, server, worker):
        # Each has settings of its own and answers its own --help.
        app.command(App(name=program.__name__, default_command=program, help_flags=[], version_flags=[], group=programs))
    groups = {title: Group(title, sort_key=order) for order, title in enumerate(COMMANDS, start=2)}
    for title, commands in COMMANDS.items():
        for name, path, text in commands:
            app.command(path, name=name, help=text, group=groups[title], help_epilogue=epilogue_of(name))
    schedule = App(name="schedule", help="Submit jobs by the clock.", group=groups["Jobs"], help_epilogue="")
    for name, path, text in SCHEDULE_COMMANDS:
        schedule.command(path, name=name, help=text, help_epilogue=epilogue_of(f"schedule {name}"))
    app.command(schedule)
    bulk_help = "Cancel, retry or delete many jobs at once."
    bulk = App(name="bulk", help=bulk_help, group=groups["Jobs"], help_epilogue=epilogue_of("bulk"))
    for name, path, text in BULK_COMMANDS:
        bulk.command(path, name=name, help=text, help_epilogue=epilogue_of(f"bulk {name}"))
    app.command(bulk)
    admin = App(name="admin", help="Prove that all is in order.", group=groups["Operations"], help_epilogue="")
    admin.command("gopher.cli.admin:audit", name="audit", help="Prove that every job stands in exactly one place.")
    app.command(admin)
    app.register_install_completion_command()
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    code = output.guarded(make_app(), argv)
    if code == output.INTERRUPTED and argv is None:
        output.end_now(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
