"""The app of the examples: a registry with the three job types `email`, `image_processing` and `data_export`.

    gopher dev --app examples.media:registry
    gopher submit data_export -p '{"database": "shop.sqlite", "table": "orders", "output": "orders.csv"}' --wait

Each handler does real work in `examples.mail`, `examples.images` and `examples.exports`, which know nothing of Gopher. What is left
for this file is what a handler is about: where it runs, what it tells the job's watchers, and which of its errors are worth another
attempt. Any job may run twice; each of the three can, without harm.
"""

from __future__ import annotations

from dataclasses import asdict

import gopher
from examples.exports import ExportRefusedError, ExportRequest, export
from examples.images import ImageRefusedError, ImageRequest, resize
from examples.mail import Email  # noqa: TC001 - read at run time, from the annotation of the handler
from examples.mailing import send

registry = gopher.Registry()


@registry.handler("email", max_attempts=5, timeout_seconds=60, backoff_initial_seconds=0.5, backoff_max_seconds=600)
def send_email(job: gopher.SyncJobContext, email: Email) -> gopher.JsonValue:
    """Deliver one mail. A plain `def` runs in a thread, because smtplib blocks; the worker's loop goes on meanwhile."""
    return send(job, email, about=job.id)


@registry.handler("image_processing", max_attempts=3, timeout_seconds=120, process=True)
def process_image(job: gopher.SyncJobContext, request: ImageRequest) -> gopher.JsonValue:
    """Scale a picture, in a process of its own: it may take all of a core, and a cancel ends it at once."""
    try:
        outputs = resize(request, job.progress)
    except ImageRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    return {"source": request.source, "outputs": [asdict(output) for output in outputs]}


def export_data(job: gopher.SyncJobContext, request: ExportRequest) -> gopher.JsonValue:
    """Write a table as CSV, in a thread; `progress()` is also where a cancel reaches it."""

    def report(rows: int, total: int) -> None:
        job.progress(rows / total, f"{rows:,} of {total:,} rows")

    try:
        made = export(request, report)
    except ExportRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    return asdict(made)


registry.register_handler("data_export", export_data)
