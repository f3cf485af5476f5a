"""Whether what the demo shows is true: looks at the files, the database and the mailboxes, not at what the jobs say of themselves."""

from __future__ import annotations

import csv
import email
import hashlib
import io
import sqlite3
from contextlib import closing
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from PIL import Image

from examples.demo.plan import GREYLISTED, NOT_YET
from examples.demo.product import DemoError
from examples.exports import Export, ExportRequest
from examples.images import ImageRequest, Output
from examples.mail import Email
from gopher import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.demo.plan import PlannedJob
    from examples.demo.post_office import PostOffice
    from gopher import Job

T = TypeVar("T")


class Resized(msgspec.Struct):
    """The result of an `image_processing` job."""

    outputs: list[Output]


class Delivered(msgspec.Struct):
    """The result of an `email` job."""

    message_id: str
    recipients: list[str]


def require(claim: bool, text: str) -> None:
    """Go on only if the claim holds.

    Raises:
        DemoError: It does not; `text` says what is wrong.
    """
    if not claim:
        raise DemoError(text)


def check_all(planned: Mapping[str, PlannedJob], finished: Mapping[str, Job], office: PostOffice) -> dict[str, str]:
    """Check every job and return what each has come to, in a few words.

    Args:
        planned: The jobs by id.
        finished: What became of them, by id.
        office: The mail server that took the mail.

    Raises:
        DemoError: Something is not as a job's result says, or not as it ought to be.
    """
    return {job_id: _check(job, finished[job_id], office) for job_id, job in planned.items()}


def _check(planned: PlannedJob, job: Job, office: PostOffice) -> str:
    require(job.state is JobState.COMPLETED, f"{planned.title}: the job is {job.state}, not completed")
    match planned.payload:
        case ImageRequest() as request:
            return _check_pictures(planned.title, request, _result(job, Resized).outputs)
        case ExportRequest() as request:
            return _check_export(planned.title, request, _result(job, Export))
        case Email() as mail:
            return _check_mail(planned.title, mail, _result(job, Delivered), job, office)


def _result(job: Job, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(job.result or b"", type=kind)
    except msgspec.MsgspecError as error:
        raise DemoError(f"the result of job {job.id} is not what its handler returns: {error}") from error


def _check_pictures(title: str, request: ImageRequest, outputs: list[Output]) -> str:
    wanted = len(request.sizes) * len(request.formats)
    require(len({output.path for output in outputs}) == wanted, f"{title}: {len(outputs)} files instead of {wanted}")
    for output in outputs:
        path = Path(output.path)
        require(path.is_file() and path.stat().st_size == output.size_bytes, f"{title}: {path} is not as the result says")
        with Image.open(path) as picture:
            picture.load()
            require(picture.size == (output.width, output.height), f"{title}: {path} has the size {picture.size}")
    return f"{wanted} pictures, {sum(output.size_bytes for output in outputs):,} bytes"


def _check_export(title: str, request: ExportRequest, made: Export) -> str:
    content = Path(made.path).read_bytes()
    require(hashlib.sha256(content).hexdigest() == made.sha256, f"{title}: {made.path} has another SHA-256")
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    with closing(sqlite3.connect(request.database)) as database:
        known = database.execute(f'SELECT {", ".join(header)} FROM "{request.table}"').fetchall()  # noqa: S608  # the plan's own
    expected = [["" if cell is None else str(cell) for cell in row] for row in known]
    require(rows == expected, f"{title}: {made.path} does not hold the rows of the table")
    require(len(rows) == made.rows, f"{title}: {len(rows)} rows, not {made.rows}")
    return f"{made.rows:,} rows, SHA-256 {made.sha256[:12]}…"


def _check_mail(title: str, mail: Email, delivered: Delivered, job: Job, office: PostOffice) -> str:
    paths = [delivery.path for delivery in office.deliveries() if delivery.recipient == mail.to]
    require(len(paths) == 1, f"{title}: {len(paths)} mails in the mailbox instead of one")
    received = email.message_from_bytes(paths[0].read_bytes(), policy=default)
    require(received["Message-ID"] == delivered.message_id, f"{title}: the Message-ID is not that of the result")
    require(received["Subject"] == mail.subject, f"{title}: the subject is {received['Subject']!r}")
    tries = 2 if mail.to in {GREYLISTED, NOT_YET} else 1
    require(office.tries(str(mail.to)) == tries, f"{title}: the mail server was asked {office.tries(str(mail.to))} times")
    require(job.attempt == tries, f"{title}: it took {job.attempt} attempts, not {tries}")
    require(job.generation == (1 if mail.to == NOT_YET else 0), f"{title}: it was requeued {job.generation} times")
    return f"delivered, {paths[0].stat().st_size:,} bytes"
