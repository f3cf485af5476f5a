"""When a cron expression fires: five fields or a name such as `@daily`, read in an IANA time zone.

Pure: no clock. The library cronsim reads the expression and walks the calendar as Debian's cron does; here it is held to
five fields, asked for moments in ms, and kept from going back.

Where clocks are set forward or back, an expression whose minute and hour are both given (neither begins with `*`) fires once a
day as the wall clock says: at a time that is skipped, at the first moment after the gap instead; at a time that comes twice, the
first time only. Any other expression follows elapsed time: skipped times are not there, and times that come twice fire twice.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

MAX_BYTES: Final = 255
"""Chosen: a list of all 60 minutes takes 170."""
FIELDS: Final = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, or L for the last"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT"),
)
NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_STEPS: Final = (60, 24, 31, 12, 7)
"""The longest step of each field: a longer one takes the first value alone, which hides a slip of the pen."""
_STEP: Final = re.compile(r"/([0-9]+)")
_UTC_NAMES: Final = frozenset({"UTC", "Etc/UTC"})
_PROBE: Final = datetime(2024, 1, 1, tzinfo=UTC)
_SHOWN: Final = 32
_MINUTE_MS: Final = 60_000


class Cron:
    """A cron expression in a time zone.

    Args:
        expression: Five fields, or a name.
        time_zone: IANA name.

    Raises:
        ValueError: The expression is not valid, or never fires, or there is no such zone; the message says which field and why.
    """

    def __init__(self, expression: str, time_zone: str) -> None:
        self._zone = zone(time_zone)
        self._fields = _fields_of(expression)
        # Schedules share expressions and fire together, and then all ask the same.
        self._last_answer: tuple[int, int | None] | None = None

    def after(self, moment_ms: int) -> int | None:
        """Return the first moment after the given one at which it fires; None if there is none within 50 years."""
        if self._last_answer is None or self._last_answer[0] != moment_ms:
            self._last_answer = moment_ms, self._walk(moment_ms)
        return self._last_answer[1]

    def _walk(self, moment_ms: int) -> int | None:
        start = datetime.fromtimestamp(moment_ms // 1000, self._zone)
        for fires_at in CronSim(self._fields, start):
            fires_ms = int(fires_at.timestamp()) * 1000
            # Within an hour that comes twice the library starts over from the first of the two.
            if fires_ms > moment_ms:
                return fires_ms
        return None

    def last(self, count: int, after_ms: int, until_ms: int) -> list[int]:
        """Return the last moments, at most `count`, after the one given moment and not after the other; oldest first.

        The walk begins near the end and further back by doubled steps, so that years of missed minutes cost no more than hours.
        """
        span_ms = _MINUTE_MS
        while True:
            start_ms = max(after_ms, until_ms - span_ms)
            found = self._between(start_ms, until_ms)
            if len(found) >= count or start_ms == after_ms:
                return found[-count:]
            span_ms *= 2

    def _between(self, after_ms: int, until_ms: int) -> list[int]:
        found = []
        moment_ms = self.after(after_ms)
        while moment_ms is not None and moment_ms <= until_ms:
            found.append(moment_ms)
            moment_ms = self.after(moment_ms)
        return found


@lru_cache(maxsize=1024)
def parsed(expression: str, time_zone: str) -> Cron:
    """Return the expression, read; the same few are asked for again and again.

    Raises:
        ValueError: As `Cron`.
    """
    return Cron(expression, time_zone)


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: There is none.
    """
    if name in _UTC_NAMES:
        return UTC
    # A machine may have files beside those, as `localtime`, `posixrules` and `right/UTC`, that are other zones elsewhere, or none.
    if name in _iana_names():
        with suppress(ValueError, KeyError, OSError):
            return ZoneInfo(name)
    raise ValueError(f"no time zone is named {name[:_SHOWN]!r}; expected an IANA name such as UTC or Europe/Berlin")


@lru_cache(maxsize=1)
def _iana_names() -> frozenset[str]:
    names = (files("tzdata") / "zones").read_text(encoding="utf-8").split()
    # The zone of a machine on which none was set.
    return frozenset(names) - {"Factory"}


def _fields_of(expression: str) -> str:
    size = len(expression.encode())
    if size > MAX_BYTES:
        raise ValueError(f"must be at most {MAX_BYTES} bytes, got {size}")
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMED:
            raise ValueError(f"no schedule is named {text[:_SHOWN]!r}; expected five fields or one of {', '.join(NAMED)}")
        return NAMED[text.lower()]
    fields = text.split()
    if len(fields) != len(FIELDS):
        names = ", ".join(name for name, _ in FIELDS)
        raise ValueError(f"must have {len(FIELDS)} fields ({names}), got {len(fields)}")
    _check_each(fields)
    _check_all(text)
    return text


def _check_each(fields: list[str]) -> None:
    for place, (name, values) in enumerate(FIELDS):
        alone = ["*"] * len(FIELDS)
        alone[place] = fields[place]
        if not _is_readable(" ".join(alone)):
            raise ValueError(f"field {place + 1} of {len(FIELDS)} ({name}): expected {values}, got {fields[place][:_SHOWN]!r}")
        longest = _STEPS[place]
        if any(len(step) > len(str(longest)) or int(step) > longest for step in _STEP.findall(fields[place])):
            raise ValueError(
                f"field {place + 1} of {len(FIELDS)} ({name}): a step is at most {longest}, got {fields[place][:_SHOWN]!r}"
            )


def _check_all(text: str) -> None:
    if not _is_readable(text) or next(CronSim(text, _PROBE), None) is None:
        raise ValueError("fields 3 to 5 of 5 (day of month, month, day of week): no day matches them, so it would never fire")


def _is_readable(text: str) -> bool:
    try:
        CronSim(text, _PROBE - timedelta(seconds=1))
    except CronSimError:
        return False
    return True
