"""The types that a worker has, as its claims name them: by a digest, of which Redis keeps the set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


class TypeSet:
    """The types that a worker has, as its claims name them.

    Args:
        names: Of the types, and as breaker:NAME the breakers that guard them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(set(names))
        digest = hashlib.blake2b("\n".join(self.names).encode(), digest_size=16)
        self.digest = digest.hexdigest()
        """The same in every worker with the same types."""


class _AnyType(TypeSet):
    """All types that there are."""

    def __init__(self) -> None:
        super().__init__(())
        self.digest = "*"


ANY_TYPE: Final[TypeSet] = _AnyType()
