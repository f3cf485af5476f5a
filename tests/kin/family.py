"""A parent made by hand, its kin, and a carrier that only remembers what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gopher.errors import JobNotFoundError
from gopher.job import JobState, NewJob
from gopher.kin.kin import Kin
from gopher.nursery import NurseryPolicy, OnCancel, OnCrash

if TYPE_CHECKING:
    from gopher.job import Job
    from gopher.kin.kin import Carries, Sibling
    from gopher.store.families import Member


@dataclass
class ParentByHand:
    """A parent that the test made."""

    id: str = "parent"
    token: int = 7
    namespace: str = "test"
    queue: str = "default"
    is_over: bool = False
    grace_seconds: float = 5.0


class Notebook:
    """Remembers what a kin asks for."""

    def __init__(self) -> None:
        self.sent = 0
        self.cancelled: list[Sibling] = []

    def send_soon(self, kin: Kin) -> None:
        self.sent += 1

    def cancel_soon(self, kin: Kin, child: Sibling) -> None:
        self.cancelled.append(child)

    async def read(self, namespace: str, job_id: str) -> Job:
        raise JobNotFoundError(job_id)


def kin_of(
    carrier: Carries,
    parent: ParentByHand | None = None,
    *,
    policy: str = "all",
    on_crash: str = "cancel",
    earlier: dict[int, Member] | None = None,
) -> Kin:
    return Kin(
        carrier, parent or ParentByHand(), 1, policy=NurseryPolicy(policy), on_crash=OnCrash(on_crash), earlier=earlier or {}
    )


def add(kin: Kin, payload: bytes = b"null", *, on_cancel: str = "cancel", **fields: object) -> Sibling:
    job = NewJob(**{"type": "work", "payload": payload, **fields})  # type: ignore[arg-type] # the test names fields of NewJob
    return kin.add(job, OnCancel(on_cancel))


def store_all(kin: Kin) -> None:
    """Do what a carrier does with all that is to be stored."""
    for number, child in enumerate(kin.unsent):
        if child.state is None:
            child.id = child.id or f"id {number}"
            kin.note_stored(child)
    kin.note_sent(len(kin.unsent))


def states(kin: Kin) -> list[JobState | None]:
    return [child.state for child in kin.children]
