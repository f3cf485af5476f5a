"""The methods of the client for programs that block about bulk operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from gopher.client import bulk, dialogues

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from gopher.bulk import BulkOperation
    from gopher.client.bulk import BulkFilter

T = TypeVar("T")


class BulkMethods(ABC):
    """What the client for programs that block can do to many jobs at once."""

    namespace: str

    @abstractmethod
    def _run(self, dialogue: dialogues.Dialogue[T]) -> T: ...

    def start_bulk_operation(
        self,
        kind: str,
        *,
        reason: str = "",
        grace: float | None = None,
        confirm: str | None = None,
        **which: Unpack[BulkFilter],
    ) -> BulkOperation:
        """Start to cancel, retry or delete every job that matches, and return the operation; the servers carry it out.

        Args:
            kind: `cancel`, `retry` or `delete`.
            reason: Of a cancel, for people.
            grace: Of a cancel: how many seconds a handler's cleanup may take; None: 5.
            confirm: What deletes, or cancels all there is, wants the name of the queue, or without one of the namespace.
            which: See `BulkFilter`.
        """
        call = bulk.start(self.namespace, kind, which, reason=reason, grace_seconds=grace, confirm=confirm)
        return self._run(dialogues.ask(call))

    def get_bulk_operation(self, operation_id: str) -> BulkOperation:
        """Return the operation as it stands."""
        return self._run(dialogues.ask(bulk.get(self.namespace, operation_id)))

    def list_bulk_operations(self) -> Sequence[BulkOperation]:
        """Return the operations of the namespace, the last one first."""
        return self._run(dialogues.ask(bulk.list_all(self.namespace)))

    def cancel_bulk_operation(self, operation_id: str) -> BulkOperation:
        """End the operation and return it; what it has done stays done."""
        return self._run(dialogues.ask(bulk.cancel(self.namespace, operation_id)))

    def wait_bulk_operation(
        self, operation_id: str, wait: float | None = None, tell: Callable[[BulkOperation], None] = bulk.nobody
    ) -> BulkOperation:
        """Return the operation once it has ended.

        Args:
            operation_id: Which.
            wait: For how many seconds to wait; None: as long as it takes.
            tell: Called with how it stands, again and again.

        Raises:
            WaitTimeoutError: It had not ended by then; it goes on.
        """
        return self._run(bulk.wait(self.namespace, operation_id, wait, tell))
