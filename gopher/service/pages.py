"""The page tokens of the lists: the store's cursor, sealed with the namespace and the list's other arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gopher_pb.v1 import admin_service_pb2, job_service_pb2, schedule_service_pb2

from gopher.errors import invalid
from gopher.service.seals import Seal

if TYPE_CHECKING:
    from gopher.store.registry import Registry

ListRequest: TypeAlias = (
    job_service_pb2.ListJobsRequest | admin_service_pb2.ListFailedJobsRequest | schedule_service_pb2.ListSchedulesRequest
)


class Pages:
    """Makes and reads page tokens.

    Args:
        registry: Holds the secrets.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def cursor(self, namespace: str, request: ListRequest) -> str | None:
        """Return the cursor that the request's token holds; None for the first page.

        Raises:
            InvalidRequestError: BAD_PAGE_TOKEN, it was not made for this list.
        """
        if not request.page_token:
            return None
        cursor = (await self._seal(namespace, request)).open(request.page_token)
        if cursor is None:
            raise invalid("page_token", "BAD_PAGE_TOKEN", "was not made by this list; start again without one")
        return cursor.decode()

    async def token(self, namespace: str, request: ListRequest, cursor: str | None) -> str:
        """Return the token for a cursor; empty for None, which comes after the last page."""
        return "" if cursor is None else (await self._seal(namespace, request)).close(cursor.encode())

    async def _seal(self, namespace: str, request: ListRequest) -> Seal:
        bare = type(request).FromString(request.SerializeToString())
        bare.namespace = namespace
        # A reader may change the size from page to page.
        bare.page_size = 0
        bare.page_token = ""
        secret = await self._registry.page_secret(namespace)
        return Seal(secret, bare.DESCRIPTOR.full_name, bare.SerializeToString(deterministic=True))
