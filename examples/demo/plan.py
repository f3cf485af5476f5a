"""The jobs of the demo, and the files and addresses they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from examples.exports import ExportRequest
from examples.images import ImageRequest
from examples.mail import Email

if TYPE_CHECKING:
    from pathlib import Path

SHOP: Final = "shop@example.com"
ADA: Final = "ada@example.com"
GREYLISTED: Final = "grace@example.com"
"""The mail server puts its first delivery off, so that the job is retried."""
NOT_YET: Final = "newcomer@example.com"
"""The mail server has no such mailbox until the operator opens it, so that the job becomes a dead letter."""

Payload: TypeAlias = Email | ImageRequest | ExportRequest


@dataclass(frozen=True)
class PlannedJob:
    """A job that the demo submits.

    Attributes:
        title: What it does, for people.
        type: Its type.
        priority: Which line of the queue it stands in.
        payload: Its input.
    """

    title: str
    type: str
    priority: str
    payload: Payload


def plan_jobs(pictures: list[Path], shop: Path, folder: Path) -> list[PlannedJob]:
    """Return the jobs that turn the pictures and the shop's database into files under `folder`, and mail three people."""
    return [
        *(_resize(picture, folder / "pictures") for picture in pictures),
        _export(shop, "orders", folder / "exports"),
        _export(shop, "customers", folder / "exports"),
        *(_mail(address) for address in (ADA, GREYLISTED, NOT_YET)),
    ]


def _resize(picture: Path, output_dir: Path) -> PlannedJob:
    request = ImageRequest(str(picture), str(output_dir), sizes=[1024, 480, 160], formats=["jpeg", "webp"])
    return PlannedJob(f"six sizes of {picture.name}", "image_processing", "low", request)


def _export(shop: Path, table: str, output_dir: Path) -> PlannedJob:
    request = ExportRequest(str(shop), table, str(output_dir / f"{table}.csv"))
    return PlannedJob(f"{table} as CSV", "data_export", "normal", request)


def _mail(address: str) -> PlannedJob:
    body = f"Dear {address.partition('@')[0].title()},\n\nyour order is on its way.\n"
    email = Email(to=address, subject="Your order ✓", body=body, sender=SHOP)
    return PlannedJob(f"mail to {address}", "email", "high", email)
