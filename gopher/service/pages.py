"""The page tokens of the lists: the store's cursor, signed so that nobody can make one up or use it for another list.

A token is the signature and the cursor, in base64. Signed are the namespace, the list's other arguments and the cursor, with a
secret that all servers of the namespace share.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Final, TypeAlias

from gopher_pb.v1 import admin_service_pb2, job_service_pb2, schedule_service_pb2

from gopher.errors import InvalidRequestError, invalid

if TYPE_CHECKING:
    from gopher.store.registry import Registry

ListRequest: TypeAlias = (
    job_service_pb2.ListJobsRequest | admin_service_pb2.ListFailedJobsRequest | schedule_service_pb2.ListSchedulesRequest
)

SIGNATURE_BYTES: Final = 16


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
        try:
            sealed = base64.urlsafe_b64decode(request.page_token.encode())
        except (binascii.Error, ValueError):
            raise _bad_token() from None
        signature, cursor = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, await self._sign(namespace, request, cursor)):
            raise _bad_token()
        return cursor.decode()

    async def token(self, namespace: str, request: ListRequest, cursor: str | None) -> str:
        """Return the token for a cursor; empty for None, which comes after the last page."""
        if cursor is None:
            return ""
        signature = await self._sign(namespace, request, cursor.encode())
        return base64.urlsafe_b64encode(signature + cursor.encode()).decode()

    async def _sign(self, namespace: str, request: ListRequest, cursor: bytes) -> bytes:
        bare = type(request).FromString(request.SerializeToString())
        bare.namespace = namespace
        # A reader may change the size from page to page.
        bare.page_size = 0
        bare.page_token = ""
        name = bare.DESCRIPTOR.full_name.encode()
        signed = b"\n".join([name, bare.SerializeToString(deterministic=True), cursor])
        return hmac.digest(await self._registry.page_secret(namespace), signed, "sha256")[:SIGNATURE_BYTES]


def _bad_token() -> InvalidRequestError:
    return invalid("page_token", "BAD_PAGE_TOKEN", "was not made by this list; start again without one")
