"""Bytes that are not the HTTP/1.1 which the server speaks, or are meant to break what reads them; and mutations of them.

Each attack is what one connection sends, in parts: the client waits for what comes back before it sends the next part.
"""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from hpack import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

Attack: TypeAlias = tuple[bytes, ...]

ANSWER_SECONDS: Final = 0.05
"""How long an attack waits for what comes back before it goes on; nothing depends on its being there."""
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, CONTINUATION = 0, 1, 2, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def headers(stream: int, *, is_last: bool = True, **pseudo: bytes) -> bytes:
    """Return a request as a frame of HTTP/2, with what is named in place of the usual."""
    usual = {"method": b"GET", "scheme": b"http", "path": b"/healthz", "authority": b"x"}
    fields = [(f":{name}".encode(), value) for name, value in (usual | pseudo).items() if value]
    return frame(HEADERS, END_HEADERS | (END_STREAM if is_last else 0), stream, Encoder().encode(fields))


def upgrade(to: str, *lines: str) -> bytes:
    """Return a request of HTTP/1.1 that asks for another protocol."""
    head = ("GET /healthz HTTP/1.1", "Host: x", f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}", *lines)
    return "\r\n".join([*head, "", ""]).encode()


START: Final = PREFACE + frame(SETTINGS, 0, 0)
KEY: Final = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
ATTACKS: Final[dict[str, Attack]] = {
    "h2c-settings": (upgrade("h2c", "HTTP2-Settings: AAA"),),
    "h2c-no-settings": (upgrade("h2c"), PREFACE),
    "websocket-frame": (upgrade("websocket", "Sec-WebSocket-Version: 13", KEY) + b"\x81\x85abcdefghi",),
    "h2-method": (START + headers(1, method=b"G\xc3\xa9T"),),
    "h2-path": (START + headers(1, path=b"/\xff"),),
    "h2-connect": (START + headers(1, method=b"CONNECT", path=b"", scheme=b""),),
    "h2-extended-connect": (START + headers(1, is_last=False, method=b"CONNECT", protocol=b"websocket") + frame(DATA, 0, 1, b"\xff" * 50),),
    "h2-priorities": (START + b"".join(frame(PRIORITY, 0, each, struct.pack(">IB", 0, 15)) for each in range(1, 3001, 2)),),
    "h2-data-after-end": (START + headers(1, is_last=False, method=b"POST", path=b"/nope"), frame(DATA, 0, 1, b"x"), frame(DATA, 0, 1, b"x")),
}  # fmt: skip
"""Each of these ended the server or was next to one that did."""
SEEDS: Final[list[Attack]] = [
    *ATTACKS.values(),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3,),
    (b"GET /nope?a=%ff HTTP/1.1\r\nHost: [\r\nOrigin: http://[\r\n\r\n",),
    (b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n", b'{"type":"Nope!"}'),
    (b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\n{\xff}[\0\r\n0\r\n\r\n"),
    (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nmore",),
    (b"HEAD http://x/metrics HTTP/1.0\r\n\r\n",),
    (START + headers(1) + frame(RESET, 0, 1, b"\0\0\0\x08") + frame(PING, 0, 0, b"12345678") + frame(CONTINUATION, 0, 3, b"\x82"),),
]  # fmt: skip


def mutations(seed: int, count: int) -> Iterator[Attack]:
    """Return attacks made of others: bytes changed, removed, doubled, put elsewhere, frames and parts mixed; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        parts = [bytearray(part) for part in chance.choice(SEEDS)]
        for _ in range(chance.randint(1, 6)):
            _mutate(chance, chance.choice(parts))
        yield tuple(map(bytes, parts))


def _mutate(chance: random.Random, part: bytearray) -> None:
    start = chance.randrange(len(part) + 1)
    end = min(len(part), start + chance.randint(1, 40))
    match chance.randrange(6):
        case 0 if part:
            part[chance.randrange(len(part))] = chance.randrange(256)
        case 1:
            del part[start:end]
        case 2:
            part[start:start] = part[start:end] * chance.choice([1, 2, 50])
        case 3:
            part[start:start] = chance.choice(chance.choice(SEEDS))
        case 4:
            kind, stream = chance.randrange(11), chance.randrange(6)
            part += frame(kind, chance.randrange(256), stream, chance.randbytes(chance.randrange(40)))
        case _:
            part[start:start] = chance.choice(
                [b"\r\n", b"\0", b"\xff", b": ", b"Transfer-Encoding: chunked\r\n", b"Host: y\r\n", b"HTTP/9.9"]
            )


def attack(address: str, parts: Attack, *, patience_seconds: float = 30.0) -> bytes:
    """Send the parts over a connection and return what has come back; blocking."""
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=patience_seconds) as peer, suppress(OSError):
        for part in parts:
            peer.settimeout(patience_seconds)
            peer.sendall(part)
            peer.settimeout(ANSWER_SECONDS)
            with suppress(TimeoutError):
                received += peer.recv(65_536)
    return received
