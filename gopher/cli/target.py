"""Which server a command talks to, and how it answers: the options that every client command has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from gopher.config import split_address
from gopher.errors import invalid

if TYPE_CHECKING:
    from gopher.client import Client


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """The options that every client command has.

    Attributes:
        server: HOST:PORT of the server's gRPC.
        namespace: Where queues, types and jobs are.
        token: Refused: no server checks one.
        json: Whether to answer in JSON.
    """

    server: Annotated[str, Parameter(env_var="GOPHER_SERVER", help="HOST:PORT of the server's gRPC.")] = "127.0.0.1:50051"
    namespace: Annotated[str, Parameter(env_var="GOPHER_NAMESPACE", help="Where queues and types are.")] = "default"
    token: Annotated[str | None, Parameter(env_var="GOPHER_TOKEN", show=False)] = None
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON, an object a line.")] = False

    def connect(self) -> Client:
        """Return a client of the server; close it.

        Raises:
            InvalidRequestError: An option does not say where a server is, or asks for what there is not.
        """
        if self.token is not None:
            raise invalid(
                "--token", "UNSUPPORTED", "servers check no token yet, so one would protect nothing (env GOPHER_TOKEN)"
            )
        _check_server(self.server)
        os.environ.setdefault(
            "GRPC_VERBOSITY", "NONE"
        )  # what becomes of a call is told in one line; gRPC's own log would come between
        from gopher.client import Client  # gRPC is loaded only by a command that runs, not by one that shows its help

        return Client(self.server, namespace=self.namespace)


def _check_server(server: str) -> None:
    """Refuse what gRPC would look up as the name of a host, and not find, or not even that."""
    scheme, is_url, rest = server.partition("://")
    if is_url and scheme not in RESOLVERS:
        rest = rest.partition("/")[0]
        raise invalid(
            "--server", "BAD_ADDRESS", f"expected HOST:PORT of the server's gRPC, got the URL {server!r}: try {rest!r}"
        )
    if server.partition(":")[0] not in RESOLVERS:
        try:
            split_address(server)
        except ValueError as error:
            raise invalid("--server", "BAD_ADDRESS", str(error)) from error


RESOLVERS: Final = frozenset({"dns", "unix", "ipv4", "ipv6"})
"""What gRPC itself makes of an address that begins with one of these, and a colon, is left to it."""

DEFAULT_TARGET: Final = Target()
