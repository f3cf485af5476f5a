"""As much of JSON Schema as our OpenAPI document uses: whether a value is what a schema says. An unknown word is an error."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gopher.job import JsonValue

    Schema = Mapping[str, JsonValue]

TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
REMARKS: Final = frozenset({"title", "description", "default"})


class Schemas:
    """The schemas of a document, by name."""

    def __init__(self, document: Mapping[str, JsonValue]) -> None:
        components = document["components"]
        assert isinstance(components, dict)
        self._schemas = components["schemas"]

    def faults(self, schema: Schema, value: JsonValue, path: str = "$") -> list[str]:
        """Return what keeps the value from being what the schema says."""
        found: list[str] = []
        for word, said in schema.items():
            if word not in REMARKS:
                found += self._check(word, said, schema, value, path)
        return found

    def named(self, reference: str) -> Schema:
        """Return the schema that `#/components/schemas/Name` means."""
        assert isinstance(self._schemas, dict)
        found = self._schemas[reference.rpartition("/")[2]]
        assert isinstance(found, dict)
        return found

    def _check(self, word: str, said: JsonValue, schema: Schema, value: JsonValue, path: str) -> Iterator[str]:
        if word == "$ref":
            yield from self.faults(self.named(str(said)), value, path)
        elif word == "anyOf":
            assert isinstance(said, list)
            ways = [self.faults(each, value, path) for each in said if isinstance(each, dict)]
            if all(ways):
                yield from min(ways, key=len)
        elif word == "items":
            assert isinstance(said, dict)
            for place, each in enumerate(value if isinstance(value, list) else []):
                yield from self.faults(said, each, f"{path}[{place}]")
        elif word in {"properties", "additionalProperties", "required"}:
            yield from self._check_object(word, said, schema, value, path)
        elif not _holds(word, said, value):
            yield f"{path}: {value!r:.60} is against {word} {said!r}"

    def _check_object(self, word: str, said: JsonValue, schema: Schema, value: JsonValue, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        if word == "required":
            assert isinstance(said, list)
            yield from (f"{path}: has no {name}" for name in said if name not in value)
            return
        for name, each in value.items():
            if word == "properties" and name in properties:
                known = properties[name]
                assert isinstance(known, dict)
                yield from self.faults(known, each, f"{path}.{name}")
            elif word == "additionalProperties" and name not in properties:
                if isinstance(said, dict):
                    yield from self.faults(said, each, f"{path}.{name}")
                elif said is False:
                    yield f"{path}: has {name}"


def _holds(word: str, said: JsonValue, value: JsonValue) -> bool:
    """Tell whether a value agrees with one word of a schema; a word says nothing of values of another kind."""
    match word:
        case "type":
            is_bool = isinstance(value, bool)
            return isinstance(value, TYPES[str(said)]) and is_bool is (said == "boolean")
        case "enum":
            return isinstance(said, list) and value in said
        case "pattern":
            return not isinstance(value, str) or re.search(str(said), value) is not None
        case "contentEncoding":
            return said == "base64" and (not isinstance(value, str) or _is_base64(value))
        case "format":
            return said == "date-time" and (not isinstance(value, str) or _is_moment(value))
        case "minimum" | "maximum":
            assert isinstance(said, int | float)
            if isinstance(value, bool) or not isinstance(value, int | float):
                return True
            return value >= said if word == "minimum" else value <= said
        case "minLength" | "minItems" | "minProperties" | "maxLength" | "maxItems" | "maxProperties":
            assert isinstance(said, int)
            kind = {"Length": str, "Items": list, "Properties": dict}[word[3:]]
            if not isinstance(value, kind):
                return True
            return len(value) >= said if word.startswith("min") else len(value) <= said
        case _:
            raise AssertionError(f"the schema says {word!r}, which is not known here")


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True
