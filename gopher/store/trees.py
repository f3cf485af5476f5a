"""What a running attempt does, asked of the worker that runs it and answered by message.

A server asks on the queue's control channel, which its workers hear; the one that runs the attempt answers on a channel that is named
after the question. Nothing is kept: an answer that nobody waits for any more is gone.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from gopher.store import keys

if TYPE_CHECKING:
    from gopher.store.link import Link


class NurseryNode(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A nursery that a Trio task holds open.

    Attributes:
        deadline_left_seconds: Until the nearest deadline of a scope around it; None for none.
        cancelled: Whether it is being cancelled.
        tasks: In the order in which they were started.
        omitted: Tasks left out.
    """

    deadline_left_seconds: float | None = None
    cancelled: bool = False
    tasks: list[TaskNode] = []
    omitted: int = 0


class TaskNode(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One Trio task.

    Attributes:
        name: As Trio has it; of the outermost, the handler.
        at: File, line and function of the innermost call of the application's own code; empty where there is none.
        awaits: What that awaits.
        deadline_left_seconds: Until the nearest deadline of a scope around it; None for none.
        cancelled: Whether it is being cancelled.
        shielded: Whether a shield keeps cancels of its attempt from it.
        nurseries: That it holds open, outermost first.
    """

    name: str
    at: str = ""
    awaits: str = ""
    deadline_left_seconds: float | None = None
    cancelled: bool = False
    shielded: bool = False
    nurseries: list[NurseryNode] = []


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a worker answers.

    Attributes:
        task: The outermost task of the attempt; None where it cannot be shown.
        note: Why not, or what to know about it.
    """

    task: TaskNode | None = None
    note: str = ""


_decode: Final = msgspec.json.Decoder(Answer).decode


class Trees:
    """Asks and answers."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, namespace: str, queue: str, job_id: str, token: int) -> Answer:
        """Return what an attempt does now; the caller's cancel scope bounds the wait for its worker.

        Args:
            namespace: Of the queue.
            queue: Of the job.
            job_id: Which.
            token: Lease token of the attempt.

        Raises:
            StoreError: Redis failed.
        """
        question = uuid.uuid4().hex
        channel = keys.answer(namespace, queue, question).encode()
        answered = trio.Event()
        found: list[bytes] = []

        def receive(message: bytes) -> None:
            found.append(message)
            answered.set()

        await self._link.subscribe(channel, receive)
        try:
            control = keys.control(namespace, queue)
            if not await self._link.call("SPUBLISH", control, f"tree {job_id} {token} {question}"):
                return Answer(note="no worker of its queue hears")
            await answered.wait()
        finally:
            await self._link.unsubscribe(channel, receive)  # noqa: ASYNC102 - takes effect before its first checkpoint
        try:
            return _decode(found[0])
        except msgspec.MsgspecError:
            return Answer(note="its worker's answer cannot be read")

    async def answer(self, namespace: str, queue: str, question: str, answer: bytes) -> None:
        """Answer a question.

        Args:
            namespace: Of the queue.
            queue: In which it was asked.
            question: As it came with `tree`.
            answer: An `Answer` as JSON.

        Raises:
            StoreError: Redis failed.
        """
        await self._link.call("SPUBLISH", keys.answer(namespace, queue, question), answer)
