"""Which server a command talks to, and how it answers: the options that every client command has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

if TYPE_CHECKING:
    from gopher.client import Client


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """The options that every client command has.

    Attributes:
        server: HOST:PORT of the server's gRPC.
        namespace: Where queues, types and jobs are.
        token: Bearer token.
        json: Whether to answer in JSON.
    """

    server: Annotated[str, Parameter(env_var="GOPHER_SERVER", help="HOST:PORT of the server's gRPC.")] = "127.0.0.1:50051"
    namespace: Annotated[str, Parameter(env_var="GOPHER_NAMESPACE", help="Where queues and types are.")] = "default"
    token: Annotated[str | None, Parameter(env_var="GOPHER_TOKEN", help="Bearer token.", show_default=False)] = None
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON, an object a line.")] = False

    def connect(self) -> Client:
        """Return a client of the server; close it."""
        os.environ.setdefault(
            "GRPC_VERBOSITY", "NONE"
        )  # what becomes of a call is told in one line; gRPC's own log would come between
        from gopher.client import Client  # gRPC is loaded only by a command that runs, not by one that shows its help

        return Client(self.server, token=self.token, namespace=self.namespace)


DEFAULT_TARGET: Final = Target()
