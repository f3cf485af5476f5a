"""JSON that every reader understands alike: keys that come twice are found, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopher.wire.check import json_fault, repetition_fault

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab":\\\u00e9 {}[],'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='ab":\\\u00e9 '), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a":1,"a":1}', "a"),
        (b'{"a" : 1,\n"a"\t: 2}', "a"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{"a":"\\u003a","a":1}', "a"),
        (b'{"":1,"":2}', ""),
        (b'[{"x":{"b":":","b":":"}}]', "b"),
        (b'{"n":123456789012345678901234567890,"o":{"c":1,"c":1}}', "c"),
    ],
)
def test_repeated_key_is_named(text: bytes, key: str) -> None:
    """However it is written, and at any depth."""
    assert json_fault(text) == repetition_fault(text) == f"the key {key!r} comes twice in an object"


@given(VALUES, st.booleans(), st.sampled_from([(",", ":"), (", ", " : ")]))
def test_text_without_repeated_keys_has_no_fault(value: object, is_ascii: bool, separators: tuple[str, str]) -> None:
    """Colons, quotes and braces within texts are no keys."""
    assert json_fault(json.dumps(value, ensure_ascii=is_ascii, separators=separators).encode()) is None


@given(VALUES, st.text(alphabet='ab":\\ '))
def test_repeated_key_is_found_whatever_is_beside_it(value: object, key: str) -> None:
    """No text hides one."""
    inner, name = json.dumps(value), json.dumps(key)

    assert json_fault(f"[{inner},{{{name}:{inner},{name}:{inner}}}]".encode()) is not None


def test_outermost_object_alone_is_looked_at() -> None:
    """What its values hold is for others to check."""
    assert repetition_fault(b'{"a":[{"b":1,"b":2}]}', is_shallow=True) is None
    assert repetition_fault(b'{"a":[{"b":1}],"a":0}', is_shallow=True) == "the key 'a' comes twice in an object"
