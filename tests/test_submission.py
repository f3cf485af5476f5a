"""What Python code says of a job: payloads as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from gopher.errors import InvalidRequestError
from gopher.submission import encode_payload


@dataclass
class Email:
    to: str
    tags: tuple[str, ...] = ()


class Order(msgspec.Struct):
    id: int
    note: str | None = None


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (None, b"null"),
        ({"to": "a@example.com"}, b'{"to":"a@example.com"}'),
        ([1, 2.5, "x", True], b'[1,2.5,"x",true]'),
        (9007199254740993, b"9007199254740993"),
        (Email("a", ("x",)), b'{"to":"a","tags":["x"]}'),
        (Order(1), b'{"id":1,"note":null}'),
        (b"raw \xff", b"raw \xff"),
        (bytearray(b"raw"), b"raw"),
    ],
)
def test_encode_payload_writes_values_as_json_and_bytes_as_they_are(payload: object, data: bytes) -> None:
    """JSON values, dataclasses and Structs become JSON without loss; bytes are not touched."""
    assert encode_payload(payload) == data


@pytest.mark.parametrize("payload", [object(), {"a": object()}, {None: 1}, "\ud800"])
def test_encode_payload_refuses_what_json_cannot_say(payload: object) -> None:
    """The refusal names the field."""
    with pytest.raises(InvalidRequestError) as caught:
        encode_payload(payload, field="jobs[3].payload")

    assert caught.value.violations[0].field == "jobs[3].payload"
    assert caught.value.violations[0].reason == "BAD_JSON"


def test_encode_payload_refuses_what_holds_itself() -> None:
    """A list in itself ends in a refusal, not in a crash."""
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(InvalidRequestError):
        encode_payload(endless)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_encode_payload_refuses_numbers_that_json_has_not(number: float) -> None:
    """They are refused wherever they hide, and not written as null; a true null passes."""
    for payload in (number, {"a": [{"b": number}]}, Email("x", (number,))):  # type: ignore[arg-type]  # a number for a tag
        with pytest.raises(InvalidRequestError, match="NaN"):
            encode_payload(payload)

    assert encode_payload({"a": None, "b": 1.5}) == b'{"a":null,"b":1.5}'
    assert encode_payload([None, msgspec.Raw(b"1")]) == b"[null,1]"


def test_encode_payload_looks_for_numbers_that_json_has_not_however_deep() -> None:
    """What msgspec can write is looked through, deeper than Python recurses."""
    nested: list[object] = [None]
    for _ in range(600):
        nested = [nested]

    assert encode_payload(nested).count(b"[") == 601
