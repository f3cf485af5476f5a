"""Handlers that run in processes of their own: the tests of `gopher.runtime.subprocesses` look at how these end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Final

import trio

import gopher
from gopher.event import EventKind

registry = gopher.Registry()

SLEEPER: Final = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def spawn_stubborn() -> int:
    """Start a process that only SIGKILL ends, wait until it stands, and return its pid."""
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child.pid


@registry.handler("echo", process=True)
def echo(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> gopher.JsonValue:
    """Return the payload and tell of it."""
    print("a handler's own line")  # noqa: T201 - where it goes is tested
    job.progress(0.5, "half")
    job.log("echoed")
    job.emit(b"\xff")
    return [job.id, job.attempt, payload]


@registry.handler("echo-trio", process=True)
async def echo_trio(job: gopher.JobContext, payload: gopher.JsonValue) -> gopher.JsonValue:
    """Do the same on Trio."""
    await job.progress(0.5, "half")
    await job.log("echoed")
    await job.emit(b"\xff")
    return [job.id, job.attempt, payload]


@registry.handler("raise", process=True, non_retryable=(LookupError,))
async def fail(job: gopher.JobContext, payload: str) -> None:
    """Raise what the payload names, from inside a nursery."""
    errors = {
        "Retry": gopher.Retry("later", after=2),
        "Snooze": gopher.Snooze(3),
        "Discard": gopher.Discard("never"),
        "ValueError": ValueError("\udcff no"),
        "StatusError": gopher.StatusError("UNAVAILABLE", "no disk", reason="NO_DISK", retry_after=7),
        "KeyError": KeyError("final"),
    }
    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - for the groups it wraps errors in
        nursery.start_soon(_throw, errors[payload])


async def _throw(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


@registry.handler("no-json", process=True)
def no_json(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> object:
    """Return what JSON cannot hold."""
    return object()


@registry.handler("nan", process=True)
def nan(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> object:
    """Return a number that JSON cannot hold."""
    return {"mean": float("nan")}


@registry.handler("lie", process=True)
def lie(job: gopher.SyncJobContext, payload: int) -> None:
    """Send a result of so many bytes past all that looks at it, and never end by itself."""
    channel = job.say.__self__._channel  # type: ignore[attr-defined]  # the worker, as the child knows it
    channel.sendall(b'{"type":"returned","size":%d}\n' % payload + b"1" * payload)
    threading.Event().wait()


@registry.handler("where", process=True)
def where(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> str:
    """Return the working directory."""
    return os.getcwd()


@registry.handler("large", process=True)
def large(job: gopher.SyncJobContext, payload: int) -> str:
    """Return a text that takes so many bytes as JSON."""
    return "x" * (payload - 2)


@registry.handler("flood", process=True)
def flood(job: gopher.SyncJobContext, payload: int) -> None:
    """Tell the worker more, in one line, than it will hear, and never end by itself."""
    for _ in range(payload):
        job.say(EventKind.LOG, "", b"x" * 10_000_000)


@registry.handler("family", process=True)
def family(job: gopher.SyncJobContext, payload: str) -> str:
    """Have a child that only SIGKILL ends; then return, exit, or stay until the end, deaf to SIGTERM or not."""
    if payload == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job.progress(0.5, f"{os.getpid()} {spawn_stubborn()}")
    if payload == "exit":
        os._exit(7)
    if payload == "thread":
        threading.Thread(target=threading.Event().wait).start()
    if payload in {"return", "thread"}:
        return "done"
    try:
        threading.Event().wait()
    finally:
        job.progress(1.0, "cleaned up")
    return "never"


DAEMON: Final = """
import os, signal, time
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""


@registry.handler("daemon", process=True)
def daemon(job: gopher.SyncJobContext, payload: str) -> str:
    """Start a process that leaves the group, and its parent, and heeds no SIGTERM; then return, or stay until the end."""
    if payload == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    starter = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    job.progress(0.5, f"{os.getpid()} {int(starter.stdout.readline())}")
    if payload != "return":
        threading.Event().wait()
    return "done"


@registry.handler("flag", process=True)
def flag(job: gopher.SyncJobContext, payload: gopher.JsonValue) -> bool:
    """Return whether a cancel was asked for, before it and after it."""
    before = job.cancel_requested
    try:
        job.progress(0.5, "begun")
        threading.Event().wait()
    except SystemExit as ended:
        sys.stderr.write(f"flag {before} {job.cancel_requested} {ended.code}\n")
        raise
    return before


@registry.handler("sleep-trio", process=True)
async def sleep_trio(job: gopher.JobContext, payload: gopher.JsonValue) -> None:
    """Sleep until cancelled, and tell of it."""
    await job.progress(0.5, f"{os.getpid()}")
    try:
        await trio.sleep_forever()
    finally:
        sys.stderr.write("cancelled as Trio cancels\n")


@registry.handler("parent", process=True)
def parent(job: gopher.SyncJobContext, payload: list[str]) -> list[str]:
    """Submit a job of each type given, and tell which ids or refusals that gave."""
    return [_try_submit(job, each) for each in payload]


def _try_submit(job: gopher.SyncJobContext, job_type: str) -> str:
    try:
        return job.submit(job_type, {"a": b"\xff".hex()}, labels={"n": "1"}, delay_seconds=1.5)
    except gopher.GopherError as error:
        return f"{type(error).__name__} {error.reason}: {error.message}"


@registry.handler("parent-trio", process=True)
async def parent_on_trio(job: gopher.JobContext, payload: list[str]) -> list[str]:
    """Do the same on Trio, all at once."""
    found: list[str] = []

    async def submit(job_type: str) -> None:
        found.append(await job.submit(job_type, b"\xff"))

    async with trio.open_nursery() as nursery:
        for each in payload:
            nursery.start_soon(submit, each)
    return sorted(found)
