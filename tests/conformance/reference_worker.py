"""A worker of WorkerService in plain Python, on gRPC's threads: what the conformance suite is tried with.

    python -m tests.conformance.reference_worker [FAULT]

A FAULT makes it err in one way, so that the suite can be seen to notice: `ignores-cancel` lets a cancelled handler go on,
`forgets-leases` brings none along after a cut, `ignores-drain` does not leave, `has-no-bound` gives more credit than it has slots,
`never-extends` says nothing of its leases, `outlives-its-lease` goes on though it cannot extend.
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from gopher_pb.v1 import worker_service_pb2 as pb
from gopher_pb.v1 import worker_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from gopher.job import JsonValue

    Handler = Callable[["Attempt", dict[str, JsonValue]], JsonValue]
    Key = tuple[str, int]

FAULTS: Final = ("ignores-cancel", "forgets-leases", "ignores-drain", "has-no-bound", "never-extends", "outlives-its-lease")
INVALID_ARGUMENT: Final = 3


class FailureError(Exception):
    """A handler's failure, with a reason."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class ToldToEndError(Exception):
    """The handler was told to end, and has."""


class Attempt:
    """One attempt, from its assignment until its outcome is confirmed."""

    def __init__(self, worker: Worker, given: pb.Assignment) -> None:
        self.given = given
        self.lease = given.lease
        self.told_to_end = threading.Event()
        self.is_lost = False
        self.outcome: pb.Settle | None = None
        self._worker = worker
        self._said = 0

    def report(self, said: pb.Report) -> None:
        self._said += 1
        said.MergeFrom(pb.Report(lease=self.lease, number=self._said))
        self._worker.say(pb.ConnectRequest(report=said))

    def run(self) -> None:
        """Run the handler, in a thread of its own."""
        try:
            result = HANDLERS[self.given.type](self, json.loads(self.given.payload))
            self.outcome = pb.Settle(lease=self.lease, result=json.dumps(result).encode())
        except ToldToEndError:
            self.outcome = pb.Settle(lease=self.lease, cancelled=pb.CancelAcknowledged())
        except FailureError as failure:
            status = status_pb2.Status(code=2, message="as asked")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason=failure.reason))
            self.outcome = pb.Settle(lease=self.lease, failure=status, is_final=failure.is_final)
        self._worker.end(self)


class Worker:
    """The worker: one stream at a time, and what it holds from one to the next."""

    def __init__(self, addresses: list[str], namespace: str, slots: int, fault: str) -> None:
        self._addresses = addresses
        self._namespace = namespace
        self._slots = slots
        self._fault = fault
        self._lock = threading.RLock()
        self._held: dict[Key, Attempt] = {}
        self._outgoing: queue.SimpleQueue[pb.ConnectRequest | None] = queue.SimpleQueue()
        self._resume_token = ""
        self._streams = 0
        self._lease_seconds = 30.0
        self._extends_sent: list[float] = []
        self._safe_until = self._next_extend = 0.0
        self._is_draining = False
        self._call: grpc.Call | None = None
        self._pause = threading.Event()

    def run(self) -> None:
        """Work until drained."""
        threading.Thread(target=self._keep_leases, daemon=True).start()
        while True:
            for address in self._addresses:
                if self._connect(address):
                    return
                self._pause.wait(random.uniform(0.05, 0.15))

    def _connect(self, address: str) -> bool:
        """Be connected until the stream ends; tell whether the worker has left."""
        with grpc.insecure_channel(address) as channel:
            with self._lock:
                self._outgoing = queue.SimpleQueue()
                self._extends_sent.clear()
                self._streams += 1
                leases = [] if self._fault == "forgets-leases" else [each.lease for each in self._held.values()]
                hello = pb.Hello(
                    namespace=self._namespace,
                    queues={"default": 1},
                    types=sorted(HANDLERS),
                    version="reference",
                    slots=self._slots,
                    resume_token=self._resume_token,
                    leases=leases,
                    stream=self._streams,
                )
                self.say(pb.ConnectRequest(hello=hello))
                outgoing = self._outgoing
            self._call = worker_service_pb2_grpc.WorkerServiceStub(channel).Connect(iter(outgoing.get, None))
            try:
                for frame in self._call:
                    with self._lock:
                        self._hear(frame)
            except grpc.RpcError:
                return False
            finally:
                outgoing.put(None)
        return self._is_draining and not self._held

    def say(self, frame: pb.ConnectRequest) -> None:
        with self._lock:
            self._outgoing.put(frame)

    def _hear(self, frame: pb.ConnectResponse) -> None:
        match frame.WhichOneof("frame"):
            case "welcome":
                self._go_on(frame.welcome)
            case "assignment":
                self._begin(frame.assignment)
            case "extended":
                self._safe_until = self._extends_sent.pop(0) + self._lease_seconds
            case "cancel" if self._fault != "ignores-cancel":
                self._cancel(_key(frame.cancel.lease))
            case "lease_lost":
                self._lose(_key(frame.lease_lost.lease))
            case "settled":
                self._confirm(frame.settled)
            case "drain" if self._fault != "ignores-drain":
                self._is_draining = True
                self._leave_when_empty()

    def _go_on(self, welcome: pb.Welcome) -> None:
        self._resume_token = welcome.resume_token
        self._lease_seconds = welcome.lease.ToMilliseconds() / 1000
        self._safe_until = time.monotonic() + self._lease_seconds
        self._next_extend = 0.0
        for attempt in self._held.values():
            if attempt.outcome is not None:
                self.say(pb.ConnectRequest(settle=attempt.outcome))
        self._give_credit(self._slots * (2 if self._fault == "has-no-bound" else 1) - len(self._held))
        self._leave_when_empty()

    def _cancel(self, key: Key) -> None:
        if key in self._held:
            self._held[key].told_to_end.set()

    def _begin(self, given: pb.Assignment) -> None:
        attempt = self._held[_key(given.lease)] = Attempt(self, given)
        threading.Thread(target=attempt.run, daemon=True).start()

    def end(self, attempt: Attempt) -> None:
        """Settle an attempt whose handler has ended."""
        with self._lock:
            if attempt.is_lost:
                self._let_go(_key(attempt.lease))
            elif attempt.outcome is not None:
                self.say(pb.ConnectRequest(settle=attempt.outcome))

    def _lose(self, key: Key) -> None:
        attempt = self._held.get(key)
        if attempt is not None:
            attempt.is_lost = True
            attempt.told_to_end.set()
            if attempt.outcome is not None:
                self._let_go(key)

    def _confirm(self, settled: pb.Settled) -> None:
        attempt = self._held.get(_key(settled.lease))
        if attempt is None:
            return
        if settled.error.code == INVALID_ARGUMENT:
            attempt.outcome = pb.Settle(lease=settled.lease, failure=settled.error, is_final=True)
            self.say(pb.ConnectRequest(settle=attempt.outcome))
        else:
            self._let_go(_key(settled.lease))

    def _let_go(self, key: Key) -> None:
        if self._held.pop(key, None) is not None:
            self._give_credit(1)
            self._leave_when_empty()

    def _give_credit(self, jobs: int) -> None:
        if jobs > 0 and not self._is_draining:
            self.say(pb.ConnectRequest(credit=pb.Credit(jobs=jobs)))

    def _leave_when_empty(self) -> None:
        if self._is_draining and not self._held:
            self.say(pb.ConnectRequest(leave=pb.Leave()))

    def _keep_leases(self) -> None:
        while True:
            self._pause.wait(0.02)
            now = time.monotonic()
            with self._lock:
                if not self._safe_until:
                    # The lease is not known yet, or has been given up.
                    continue
                if now > self._safe_until - self._lease_seconds / 10:
                    self._give_up()
                elif now >= self._next_extend:
                    self._next_extend = now + self._lease_seconds / 3
                    self._extends_sent.append(now)
                    held = [] if self._fault == "never-extends" else [each.lease for each in self._held.values()]
                    self.say(pb.ConnectRequest(extend=pb.Extend(leases=held)))

    def _give_up(self) -> None:
        """End all attempts: their leases may have ended."""
        self._safe_until = 0.0
        if self._fault != "outlives-its-lease":
            for key in list(self._held):
                self._lose(key)
        if self._call is not None:
            self._call.cancel()


def _key(lease: pb.Lease) -> Key:
    return lease.job_id, lease.token


# --- the handlers that the suite asks for ---


def echo(_attempt: Attempt, payload: JsonValue) -> JsonValue:
    return payload


def fail(attempt: Attempt, payload: dict[str, JsonValue]) -> JsonValue:
    times = payload["times"]
    assert isinstance(times, int)
    if attempt.given.attempt <= times:
        raise FailureError(str(payload["reason"]), is_final=bool(payload.get("final")))
    return None


def big(_attempt: Attempt, payload: dict[str, JsonValue]) -> JsonValue:
    count = payload["bytes"]
    assert isinstance(count, int)
    return "x" * count


def slow(attempt: Attempt, payload: dict[str, JsonValue]) -> JsonValue:
    def note(word: str) -> None:
        with open(str(payload["file"]), "a", encoding="utf-8") as file:
            file.write(f"{word} {attempt.lease.job_id} {attempt.given.attempt}\n")

    note("begin")
    if attempt.told_to_end.wait(_seconds(payload)):
        note("cancelled")
        raise ToldToEndError
    note("end")
    return None


def progress(attempt: Attempt, payload: dict[str, JsonValue]) -> JsonValue:
    attempt.report(pb.Report(progress=pb.ReportedProgress(fraction=0.5, message="half")))
    attempt.report(pb.Report(log=pb.ReportedLog(level="warning", message="half is done")))
    attempt.report(pb.Report(output=pb.ReportedOutput(data=b"a chunk")))
    attempt.told_to_end.wait(_seconds(payload))
    return None


def _seconds(payload: dict[str, JsonValue]) -> float:
    seconds = payload["seconds"]
    assert isinstance(seconds, int | float)
    return seconds


HANDLERS: Final[dict[str, Handler]] = {
    "conformance.echo": echo,
    "conformance.fail": fail,
    "conformance.big": big,
    "conformance.slow": slow,
    "conformance.progress": progress,
}


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    addresses = os.environ["GOPHER_SERVER"].split(",")
    Worker(addresses, os.environ["GOPHER_NAMESPACE"], int(os.environ["GOPHER_CONCURRENCY"]), chosen).run()
