"""How the value of a setting is written as text: lengths of time, queues with weights, addresses, Redis URLs.

Each `parse_` function takes what a flag, a variable or the file holds and raises `ValueError` with a line that says what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

PLAIN_NUMBER: Final = re.compile(r"\d+(\.\d+)?")
LENGTH_OF_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SECONDS_A_UNIT: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CONCURRENCY_BOUNDS: Final = re.compile(r"\d{1,9}-\d{1,9}")
MASKED: Final = re.compile(r"^\*\*\*$|:\*\*\*@|[?&]password=\*\*\*(&|$)")
ADDRESS: Final = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
MAX_PORT: Final = 65_535
LOCAL_HOST: Final = "127.0.0.1"
REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})


def parse_seconds(text: str) -> float:
    """Return the seconds that a text such as `30`, `1.5`, `500ms`, `90s` or `1h30m` stands for."""
    if PLAIN_NUMBER.fullmatch(text):
        return float(text)
    if not re.fullmatch(f"(?:{LENGTH_OF_TIME.pattern})+", text):
        raise ValueError(f"expected seconds (30, 1.5) or a length of time (500ms, 90s, 1h30m), got {text!r}")
    return sum(float(number) * SECONDS_A_UNIT[unit] for number, unit in LENGTH_OF_TIME.findall(text))


def parse_queues(text: str) -> dict[str, int]:
    """Return names and weights from `a=2,b=1`; a name without a weight has weight 1."""
    queues: dict[str, int] = {}
    for item in text.split(","):
        name, separator, weight = (part.strip() for part in item.partition("="))
        if not name or (separator and not weight.isdecimal()):
            raise ValueError(f"expected queues and weights such as 'a=2,b=1', got {text!r}")
        if name in queues:
            raise ValueError(f"queue {name!r} comes twice in {text!r}")
        queues[name] = int(weight) if separator else 1
    return queues


def parse_concurrency(text: str) -> int | str:
    """Return a number, or bounds as `MIN-MAX`."""
    if text.isdecimal():
        return int(text)
    if not CONCURRENCY_BOUNDS.fullmatch(text):
        raise ValueError(f"expected a number such as 100, or bounds such as '5-200', got {text!r}")
    return text


def split_concurrency(concurrency: int | str) -> tuple[int, int]:
    """Return the least and the most; a number is both."""
    low, _, high = str(concurrency).partition("-")
    return int(low), int(high or low)


def parse_count(text: str) -> int | str:
    """Return a number, or `auto`."""
    if text != "auto" and not text.isdecimal():
        raise ValueError(f"expected a number >= 1 or 'auto', got {text!r}")
    return text if text == "auto" else int(text)


def parse_address(text: str) -> str | None:
    """Return `HOST:PORT` with its host named, or None for `none`."""
    return None if text == "none" else join_address(*split_address(text))


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` (`[::1]:50051` for IPv6; no host means 127.0.0.1).

    What listens on an address listens on what this returns: the text itself may mean something else to it, such as every interface.

    Raises:
        ValueError: It is not written like that, or the port is over 65535.
    """
    found = ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > MAX_PORT:
        raise ValueError(f"expected HOST:PORT with a port from 0 to {MAX_PORT}, got {address!r}")
    return found["bracketed"] or found["plain"] or LOCAL_HOST, int(found["port"])


def join_address(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host; a name other than `localhost` is taken to be reachable from elsewhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_redis_url(text: str) -> str:
    """Return the URL; `HOST:PORT`, as the original took it, becomes `redis://HOST:PORT`."""
    url = text if "://" in text else f"redis://{text}"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in REDIS_SCHEMES and parts.port != 0
    except ValueError:
        # Its text may hold a piece of the password, when that has a "/" in it.
        is_valid = False
    if not is_valid:
        raise ValueError(f"expected a redis://, rediss:// or unix:// URL (a password percent-encoded), got {mask_url(text)!r}")
    return url


def mask_url(url: str) -> str:
    """Return the URL with its password replaced by `***`; rather too much is hidden than too little."""
    url = re.sub(r"(://[^/@:]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", url)


def mask_whole(_: str) -> str:
    """Return `***`."""
    return "***"


def is_masked(text: str) -> bool:
    """Tell whether the text is what a mask has left: it holds `***` where a password was."""
    return MASKED.search(text) is not None
