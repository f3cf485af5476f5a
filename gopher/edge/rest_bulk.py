"""The operations of REST that act on many jobs at once: each starts a bulk operation, or looks at one, or ends one."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from gopher_pb.v1 import admin_service_pb2 as pb

from gopher.bulk import BulkKind
from gopher.edge.rest_answers import BulkList, BulkView, bulk_view
from gopher.edge.rest_bodies import BulkBody, NoBody, PurgeFailedBody, Query
from gopher.edge.rest_calls import GET, POST, Call
from gopher.job import JobState

if TYPE_CHECKING:
    from gopher.edge.rest_calls import Operation
    from gopher.service.bulk import Bulk


class BulkCalls:
    """Answers them.

    Args:
        bulk: The service.
    """

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    def operations(self) -> list[Operation]:
        """Return the operations."""
        all_path, one_path = "/api/v1/bulk-operations", "/api/v1/bulk-operations/{operation_id}"
        accepted = HTTPStatus.ACCEPTED
        return [
            Call(
                POST,
                all_path,
                "Start to cancel, retry or delete every job that matches.",
                self._start,
                query=Query,
                body=BulkBody,
                answer=BulkView,
                status=accepted,
            ),
            Call(GET, all_path, "List the bulk operations.", self._list, query=Query, body=NoBody, answer=BulkList),
            Call(GET, one_path, "Look at a bulk operation.", self._get, query=Query, body=NoBody, answer=BulkView),
            Call(
                POST,
                f"{one_path}/cancel",
                "End a bulk operation; what it has done stays done.",
                self._cancel,
                query=Query,
                body=NoBody,
                answer=BulkView,
            ),
            Call(
                POST,
                "/api/v1/failed/purge",
                "Start to remove the dead letters that match, for good.",
                self._purge_failed,
                query=Query,
                body=PurgeFailedBody,
                answer=BulkView,
                status=accepted,
            ),
        ]

    async def _start(self, _name: str, query: Query, body: BulkBody) -> BulkView:
        return bulk_view((await self._bulk.start_bulk_operation(body.request(query.namespace))).operation)

    async def _purge_failed(self, _name: str, query: Query, body: PurgeFailedBody) -> BulkView:
        whole = BulkBody(kind=BulkKind.DELETE, states=[JobState.FAILED], queue=body.queue, type=body.type, confirm=body.confirm)
        return await self._start("", query, whole)

    async def _list(self, _name: str, query: Query, _body: NoBody) -> BulkList:
        reply = await self._bulk.list_bulk_operations(pb.ListBulkOperationsRequest(namespace=query.namespace))
        return BulkList([bulk_view(each) for each in reply.operations])

    async def _get(self, operation_id: str, query: Query, _body: NoBody) -> BulkView:
        request = pb.GetBulkOperationRequest(namespace=query.namespace, operation_id=operation_id)
        return bulk_view((await self._bulk.get_bulk_operation(request)).operation)

    async def _cancel(self, operation_id: str, query: Query, _body: NoBody) -> BulkView:
        request = pb.CancelBulkOperationRequest(namespace=query.namespace, operation_id=operation_id)
        return bulk_view((await self._bulk.cancel_bulk_operation(request)).operation)
