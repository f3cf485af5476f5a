"""Cron expressions: which are refused and why, when they fire, and what happens where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.cron import FIELDS, MAX_BYTES, NAMED, Cron, zone

DAY_MS = 24 * 3600 * 1000
START = datetime(2026, 1, 1, tzinfo=UTC)


def ms(*when: int, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)  # type: ignore[arg-type, misc] # year, month...


def series(expression: str, zone: str, after_ms: int, count: int) -> list[str]:
    """Return when it fires next, as the clocks of the zone and of UTC show it."""
    found = []
    for _ in range(count):
        next_ms = Cron(expression, zone).after(after_ms)
        assert next_ms is not None
        after_ms = next_ms
        moment = datetime.fromtimestamp(after_ms / 1000, ZoneInfo(zone))
        found.append(f"{moment:%m-%d %H:%M} {moment.astimezone(UTC):%H:%M}")
    return found


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("* * *", "must have 5 fields (minute, hour, day of month, month, day of week), got 3"),
        ("", "got 0"),
        ("* * * * * *", "got 6"),
        ("61 * * * *", "field 1 of 5 (minute): expected 0 to 59, got '61'"),
        ("*/0 * * * *", "field 1 of 5 (minute)"),
        (f"*/{'9' * 25} * * * *", "field 1 of 5 (minute): a step is at most 60, got '*/9999"),
        ("*/90 * * * *", "field 1 of 5 (minute): a step is at most 60, got '*/90'"),
        ("0 1,2-9/25 * * *", "field 2 of 5 (hour): a step is at most 24"),
        ("0 24 * * *", "field 2 of 5 (hour)"),
        ("0 0 0 * *", "field 3 of 5 (day of month)"),
        ("0 0 1 FOO *", "field 4 of 5 (month): expected 1 to 12 or JAN to DEC, got 'FOO'"),
        ("0 0 * * FRI-MON", "field 5 of 5 (day of week)"),
        ("0 0 30 2 *", "never fire"),
        ("0 0 31 4,6 *", "never fire"),
        ("@every 1ms", "no schedule is named '@every 1ms'"),
        ("@reboot", "no schedule is named"),
        ("*" * 4096, f"must be at most {MAX_BYTES} bytes, got 4096"),
    ],
)
def test_cron_refuses_what_cannot_work_and_says_where(expression: str, reason: str) -> None:
    """A faulty expression is refused with the place of the field and what it must hold; so is one that never fires."""
    with pytest.raises(ValueError, match=r".") as caught:
        Cron(expression, "UTC")

    assert reason in str(caught.value)


@given(st.text(alphabet="0123456789*/,-#LW? @AMONJTU\u0661\t", max_size=40))
def test_cron_reads_or_refuses_any_text(text: str) -> None:
    """No text makes it fail in another way than by a ValueError, and what is taken fires."""
    try:
        cron = Cron(text, "Europe/Berlin")
    except ValueError:
        return

    assert cron.after(0) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("America", "../etc/passwd", "/etc/localtime", "", "Mars/Olympus", "a\0b", "Z" * 5000),
        *("localtime", "posixrules", "posix/UTC", "right/Europe/Berlin", "Factory", "zone.tab"),
    ],
)
def test_zone_refuses_what_is_no_iana_name(name: str) -> None:
    """Paths, directories, unknown names and this machine's own zone are refused alike."""
    with pytest.raises(ValueError, match="no time zone is named"):
        zone(name)


@pytest.mark.parametrize("name", NAMED)
def test_named_schedule_is_its_five_fields(name: str) -> None:
    """A name, in any case, fires as the fields it stands for."""
    assert Cron(name.upper(), "UTC").after(0) == Cron(NAMED[name], "UTC").after(0)
    assert len(NAMED[name].split()) == len(FIELDS)


def test_days_of_month_and_week_are_alternatives_unless_one_is_a_star() -> None:
    """Cron's own rule: with both given, a day that matches either; names of months and days are understood."""
    either = series("0 9 13 * FRI", "UTC", ms(2026, 3, 1), 5)
    both = series("0 9 * MAR FRI", "UTC", ms(2026, 3, 1), 2)

    assert [each[:5] for each in either] == ["03-06", "03-13", "03-20", "03-27", "04-03"]
    assert [each[:5] for each in both] == ["03-06", "03-13"]


def test_skipped_time_fires_at_the_first_moment_after_the_gap() -> None:
    """Berlin, 29 March 2026: 02:00 to 03:00 is not there, so 02:30 fires at 03:00, once, and at 02:30 again the day after."""
    found = series("30 2 * * *", "Europe/Berlin", ms(2026, 3, 28, 0, zone="Europe/Berlin"), 3)

    assert found == ["03-28 02:30 01:30", "03-29 03:00 01:00", "03-30 02:30 00:30"]


def test_doubled_time_fires_the_first_time_only() -> None:
    """Berlin, 25 October 2026: 02:30 comes twice and fires once, also when asked from within the second 02:00 hour."""
    found = series("30 2 * * *", "Europe/Berlin", ms(2026, 10, 24, 12, zone="Europe/Berlin"), 2)
    within = series("30 2 * * *", "Europe/Berlin", ms(2026, 10, 25, 2, 10, zone="Europe/Berlin", fold=1), 1)

    assert found == ["10-25 02:30 00:30", "10-26 02:30 01:30"]
    assert within == ["10-26 02:30 01:30"]


def test_frequent_expression_follows_elapsed_time() -> None:
    """Every half hour stays every half hour, through the gap and through the hour that comes twice."""
    spring = series("*/30 * * * *", "Europe/Berlin", ms(2026, 3, 29, 1, 0, zone="Europe/Berlin"), 3)
    autumn = series("*/30 * * * *", "Europe/Berlin", ms(2026, 10, 25, 2, 0, zone="Europe/Berlin"), 4)

    assert spring == ["03-29 01:30 00:30", "03-29 03:00 01:00", "03-29 03:30 01:30"]
    assert autumn == ["10-25 02:30 00:30", "10-25 02:00 01:00", "10-25 02:30 01:30", "10-25 03:00 02:00"]


EXPRESSIONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "0 0 * * *", "15 */2 * * SUN", "0 * 1,L * *"]
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/New_York",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2010, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
)
def test_cron_always_goes_forward_and_skips_nothing_when_asked_later(expression: str, name: str, start: datetime) -> None:
    """In every zone the next moment is later, and asked from anywhere before it, it is still the next."""
    cron = Cron(expression, name)
    start_ms = int(start.timestamp() * 1000)

    next_ms = cron.after(start_ms)

    assert next_ms is not None
    assert next_ms > start_ms
    assert cron.after(next_ms - 1) == next_ms
    assert cron.after((start_ms + next_ms) // 2) == next_ms


def test_last_finds_the_end_of_a_long_series_and_all_of_a_short_one() -> None:
    """Of years of minutes the last are found without walking through them all; of few, all, and none of no time."""
    cron, daily = Cron("* * * * *", "UTC"), Cron("@daily", "UTC")
    end_ms = ms(2026, 6, 1, 12, 0)

    assert cron.last(3, 0, end_ms) == [end_ms - 120_000, end_ms - 60_000, end_ms]
    assert daily.last(10, end_ms - 2 * DAY_MS, end_ms) == [end_ms - DAY_MS * 3 // 2, end_ms - DAY_MS // 2]
    assert daily.last(10, end_ms, end_ms) == []
    assert cron.last(1, end_ms + 60_000, end_ms) == []


def test_leap_day_fires_every_four_years() -> None:
    """The rarest honest expression is found."""
    found = Cron("0 0 29 2 *", "UTC").after(int((START + timedelta(days=60)).timestamp() * 1000))

    assert found == ms(2028, 2, 29)
