"""Transports, and nothing else: what turns a call of a client into a call of a service, and its answer back.

In reading order:

- `methods`: the table of rpcs, each with the service method that answers it.
- `interceptors`: what surrounds every handler: bytes to message, deadline, errors to statuses, a line in the log.
- `handover`: the crossing between gRPC's thread and Trio.
- `duplex`: the same for calls whose client streams too.
- `grpc_server`: gRPC itself, its limits, and how it starts and stops.
- `grpc_calls`: what gRPC's thread does with each rpc.
- `reflection`, `channelz`: what tools ask a server, served by gRPC's thread itself, behind flags.
- `health`: whether this server serves, over gRPC and HTTP alike.
- `http_server`, `http_connection`: HTTP/1.1 itself, for any ASGI application.
- `rest`: the application that it serves.
"""
