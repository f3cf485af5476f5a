"""Applications of several services that share a queue: each has handlers for jobs of its own types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gopher
from tests.e2e.apps.work import note

if TYPE_CHECKING:
    from collections.abc import Iterable


async def handle(job: gopher.JobContext, payload: gopher.JsonValue) -> gopher.JsonValue:  # noqa: ASYNC124 - a handler
    """Return the payload."""
    note("start", job)
    return payload


def service(types: Iterable[str]) -> gopher.Registry:
    made = gopher.Registry()
    for each in types:
        made.handler(each)(handle)
    return made


mails = service(["mail"])
pictures = service(["picture"])
mails_and_pictures = service(["mail", "picture"])
pictures_and_reports = service(["picture", "report"])
