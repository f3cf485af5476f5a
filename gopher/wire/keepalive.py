"""How either end of a connection finds out that it leads nowhere any more, as after a cable was cut: nobody says so."""

from __future__ import annotations


def keepalive(*, quiet_seconds: int, answer_seconds: int) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a connection that is asked for a sign of life where it has told nothing for a while.

    Args:
        quiet_seconds: The while.
        answer_seconds: How long the answer may take. Then the connection is gone, and with it the calls on it.
    """
    return (
        ("grpc.keepalive_time_ms", quiet_seconds * 1000),
        # The first alone has no effect, the second is what gRPC heeds (grpc/grpc#39239; measured: with its default it took a minute).
        ("grpc.keepalive_timeout_ms", answer_seconds * 1000),
        ("grpc.http2.ping_timeout_ms", answer_seconds * 1000),
    )
