"""`examples.demo.checks`: what the demo shows is checked against files and mailboxes, and a lie is found."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from examples.demo.checks import check_all
from examples.demo.inputs import draw_badge, make_shop
from examples.demo.plan import ADA, GREYLISTED, NOT_YET, PlannedJob
from examples.demo.post_office import PostOffice
from examples.demo.product import DemoError
from examples.exports import ExportRequest, export
from examples.images import ImageRequest, resize
from examples.mail import Email, MailRefusedError, compose, deliver
from gopher import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gopher import JsonValue


class Finished:
    """Jobs that were done, and their traces in the world, to be tampered with."""

    def __init__(self, folder: Path, office: PostOffice) -> None:
        self.folder = folder
        self.office = office
        self.planned: dict[str, PlannedJob] = {}
        self.jobs: dict[str, Job] = {}

    def add(self, planned: PlannedJob, result: JsonValue, *, attempt: int = 1, generation: int = 0) -> None:
        job_id = planned.title
        self.planned[job_id] = planned
        self.jobs[job_id] = Job(
            id=job_id,
            namespace="default",
            type=planned.type,
            state=JobState.COMPLETED,
            submitted_ms=0,
            attempt=attempt,
            generation=generation,
            result=msgspec.json.encode(result),
        )

    def add_mail(self, address: str, tries: int, generation: int = 0) -> None:
        mail = Email(to=address, subject="hello")
        for _ in range(tries):
            try:
                deliver(mail, compose(mail, f"<{address}>"), "127.0.0.1", self.office.port)
            except MailRefusedError:
                self.office.open_mailbox(address)
        result: JsonValue = {"message_id": f"<{address}>", "recipients": [address]}
        self.add(PlannedJob(address, "email", "high", mail), result, attempt=tries, generation=generation)

    def change(self, job_id: str, **fields: object) -> None:
        self.jobs[job_id] = replace(self.jobs[job_id], **fields)

    def check(self) -> dict[str, str]:
        return check_all(self.planned, self.jobs, self.office)


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Finished]:
    with PostOffice(tmp_path / "mail", [ADA, GREYLISTED], greylisted=[GREYLISTED]) as office:
        finished = Finished(tmp_path, office)
        draw_badge(300).save(tmp_path / "badge.png")
        pictures = ImageRequest(str(tmp_path / "badge.png"), str(tmp_path / "out"), sizes=[60, 30])
        outputs: list[JsonValue] = [asdict(output) for output in resize(pictures, lambda share, what: None)]
        finished.add(PlannedJob("pictures", "image_processing", "low", pictures), {"outputs": outputs})
        make_shop(tmp_path / "shop.sqlite", orders=30)
        orders = ExportRequest(str(tmp_path / "shop.sqlite"), "orders", str(tmp_path / "out" / "orders.csv"))
        finished.add(PlannedJob("orders", "data_export", "normal", orders), asdict(export(orders, lambda rows, total: None)))
        finished.add_mail(ADA, tries=1)
        finished.add_mail(GREYLISTED, tries=2)
        finished.add_mail(NOT_YET, tries=2, generation=1)
        yield finished


def test_check_all_tells_what_each_job_has_come_to(finished: Finished) -> None:
    """What is true passes, and is told in a few words."""
    told = finished.check()

    assert list(told) == ["pictures", "orders", ADA, GREYLISTED, NOT_YET]
    assert told["pictures"].startswith("2 pictures, ")
    assert told["orders"].startswith("30 rows, SHA-256 ")
    assert told[ADA].startswith("delivered, ")


LIES: list[tuple[str, Callable[[Finished], object]]] = [
    ("the job is failed", lambda f: f.change("orders", state=JobState.FAILED)),
    ("not what its handler returns", lambda f: f.change("orders", result=b'{"rows": "many"}')),
    ("is not as the result says", lambda f: (f.folder / "out" / "badge-60.jpg").unlink()),
    ("is not as the result says", lambda f: os.truncate(f.folder / "out" / "badge-60.jpg", 10)),
    ("files instead of 2", lambda f: f.change("pictures", result=b'{"outputs": []}')),
    ("has another SHA-256", lambda f: (f.folder / "out" / "orders.csv").write_text("id\n1\n")),
    ("does not hold the rows of the table", lambda f: make_shop_anew(f.folder / "shop.sqlite")),
    ("0 mails in the mailbox", lambda f: f.office.received.clear()),
    ("2 mails in the mailbox", lambda f: f.add_mail(ADA, tries=1)),
    ("the Message-ID is not that of the result", lambda f: f.change(ADA, result=b'{"message_id": "<x>", "recipients": []}')),
    ("it took 1 attempts, not 2", lambda f: f.change(GREYLISTED, attempt=1)),
    ("it was requeued 0 times", lambda f: f.change(NOT_YET, generation=0)),
]


def make_shop_anew(path: Path) -> None:
    path.unlink()
    make_shop(path, orders=31)


@pytest.mark.parametrize(("told", "lie"), LIES, ids=[told for told, _ in LIES])
def test_check_all_finds_a_lie(finished: Finished, told: str, lie: Callable[[Finished], object]) -> None:
    """A single thing that is not as shown is named in one line."""
    lie(finished)

    with pytest.raises(DemoError, match=told) as caught:
        finished.check()

    assert "\n" not in str(caught.value)
