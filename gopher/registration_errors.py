"""What a worker that registers is refused with."""

from __future__ import annotations

from gopher.errors import RequestError


class TooManyTypesError(RequestError):
    """The namespace knows as many job types as it may."""

    reason = "TOO_MANY_TYPES"

    def __init__(self, job_type: str, limit: int, kept_days: int) -> None:
        super().__init__(
            f"type {job_type!r} cannot be registered: a namespace knows {limit:,} types at most; use another namespace, or fewer "
            f"types: one that no worker has had for {kept_days} days is forgotten",
            type=job_type,
        )
