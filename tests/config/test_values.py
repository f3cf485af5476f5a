from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.config.values import (
    is_loopback,
    mask_url,
    parse_address,
    parse_queues,
    parse_redis_url,
    parse_seconds,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("1.5", 1.5), ("500ms", 0.5), ("90s", 90.0), ("1h30m", 5400.0), ("2d", 172_800.0), ("0", 0.0)],
)
def test_parse_seconds_reads_numbers_and_lengths_of_time(text: str, seconds: float) -> None:
    """A plain number is seconds; a length of time is the sum of its parts."""
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "1 s", "s", "1x", "1h 30m", "nan", "inf", "1e3", "1h30"])
def test_parse_seconds_refuses_all_else(text: str) -> None:
    """What is neither is refused, with what was expected and what came."""
    with pytest.raises(ValueError, match="expected seconds") as caught:
        parse_seconds(text)

    assert repr(text) in str(caught.value)


def test_parse_queues_reads_names_and_weights() -> None:
    """Weights are read, one without stands for 1, and the order is kept."""
    assert list(parse_queues("b=2, a ,c=10").items()) == [("b", 2), ("a", 1), ("c", 10)]


@pytest.mark.parametrize("text", ["", "a=", "a=x", "=2", "a,,b", "a=-1", "a=1.5"])
def test_parse_queues_refuses_what_has_no_name_or_no_whole_weight(text: str) -> None:
    """A missing name and a weight that is no whole number are refused."""
    with pytest.raises(ValueError, match="expected queues"):
        parse_queues(text)


def test_parse_queues_refuses_a_name_twice() -> None:
    """Two weights for one queue are not merged in silence."""
    with pytest.raises(ValueError, match="twice"):
        parse_queues("a=1,a=2")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
        (":8080", ("127.0.0.1", 8080)),
        ("[]:8080", ("127.0.0.1", 8080)),
        ("[127.0.0.1]:80", ("127.0.0.1", 80)),
    ],
)
def test_split_address_gives_host_and_port(address: str, parts: tuple[str, int]) -> None:
    """Names, IPv4 and bracketed IPv6 are split; no host means this machine only."""
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "1.2.3.4", "[:80", "]:80", "[[]]:80", "h:٨٠"]
)
def test_split_address_refuses_what_is_no_host_and_port(address: str) -> None:
    """No port, no number, a number too large and naked IPv6 are refused."""
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(("text", "expected"), [(":80", "127.0.0.1:80"), ("[]:80", "127.0.0.1:80"), ("[::1]:0080", "[::1]:80")])
def test_parse_address_names_the_host(text: str, expected: str) -> None:
    """What is shown and checked is what is listened on."""
    assert parse_address(text) == expected


def test_parse_address_reads_none() -> None:
    """`none` switches the listener off."""
    assert parse_address("none") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_is_loopback_knows_addresses_and_localhost(host: str, expected: bool) -> None:
    """Only what this machine alone can reach counts as loopback."""
    assert is_loopback(host) is expected


def test_is_loopback_takes_any_other_name_to_be_reachable() -> None:
    """A name is not looked up: it may mean another address tomorrow."""
    assert not is_loopback("gopher.example")


def test_parse_redis_url_takes_the_address_of_the_original() -> None:
    """HOST:PORT alone becomes a URL."""
    assert parse_redis_url("redis:6379") == "redis://redis:6379"


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host", "redis://user:hunter2@host:port", "redis://user:hun/ter2@host:1", "redis://[::1"]
)
def test_parse_redis_url_refuses_without_repeating_the_password(url: str) -> None:
    """The line that refuses a URL holds no piece of the password in it."""
    with pytest.raises(ValueError, match="expected a redis://") as caught:
        parse_redis_url(url)

    assert "ter2" not in str(caught.value)


@given(st.text(alphabet=st.characters(exclude_characters="*", codec="ascii", categories=["L", "N", "P"]), min_size=4))
def test_mask_url_hides_any_password(password: str) -> None:
    """Whatever the password holds, the shown URL does not hold it."""
    secret = f"s3cr3t{password}"

    assert secret not in mask_url(f"redis://user:{secret}@host:6379/0")


def test_mask_url_hides_a_password_in_the_query() -> None:
    """A password given as a parameter is hidden too; the rest stays."""
    assert mask_url("unix:///tmp/r.sock?db=1&password=hunter2&x=1") == "unix:///tmp/r.sock?db=1&password=***&x=1"
