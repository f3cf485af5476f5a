"""The OpenAPI document, made from the very declarations that requests are checked by and answers are made of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

import msgspec

from gopher.edge.rest_answers import Refusal
from gopher.edge.rest_bodies import ID_PATTERN, NAME_PATTERN
from gopher.edge.rest_errors import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gopher.edge.rest_calls import Operation
    from gopher.job import JsonValue

VERSION: Final = "3.1.0"
PATH: Final = "/openapi.json"

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_PATTERNS: Final = {
    "job_id": ID_PATTERN,
    "operation_id": ID_PATTERN,
    "queue": NAME_PATTERN,
    "worker_id": ".",
    "type": NAME_PATTERN,
    "name": NAME_PATTERN,
}
_ANY_CALL: Final = {
    "400": "The request is not what it must be, or the state of the thing does not allow it.",
    "403": "The request was sent by a page of another origin.",
    "429": "Redis is out of memory, or too much is under way.",
    "500": "A defect of Gopher; its log has more under the error id.",
    "503": "Redis or the server does not serve now; `Retry-After` says when to try again.",
    "504": "The answer was not known in time.",
}
_NAMED_CALL: Final = {"404": "There is no such thing."}
_SENDING_CALL: Final = {
    "408": "The body came too slowly.",
    "409": "Something else holds what the request would create.",
    "413": "The body is too large.",
    "415": "The body is not said to be JSON.",
}


def document(operations: Iterable[Operation], version: str) -> dict[str, JsonValue]:
    """Return the document.

    Args:
        operations: All there are.
        version: Of Gopher.
    """
    listed = list(operations)
    declared: list[type[msgspec.Struct]] = [Refusal]
    for each in listed:
        declared += [each.query_type, each.answer_type]
        declared += [kind for kind in (each.body_type, each.other_answer_type) if kind is not None]
    _, components = msgspec.json.schema_components(declared, ref_template=_REF)
    schemas = cast("dict[str, dict[str, JsonValue]]", components)  # what msgspec makes is JSON
    paths: dict[str, JsonValue] = {}
    for each in listed:
        path = cast("dict[str, JsonValue]", paths.setdefault(each.path, {}))  # made in this very loop
        path[each.method.lower()] = _operation(each, schemas)
    queries = {each.query_type.__name__ for each in listed}
    return {
        "openapi": VERSION,
        "info": {
            "title": "Gopher",
            "version": version,
            "description": "Submits jobs, looks at them, follows them and ends them. Errors have one shape everywhere.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        # The queries stand as parameters.
        "components": {"schemas": {name: schema for name, schema in schemas.items() if name not in queries}},
    }


def _operation(each: Operation, schemas: Mapping[str, Mapping[str, JsonValue]]) -> JsonValue:
    said: dict[str, JsonValue] = {
        "operationId": _operation_id(each),
        "summary": each.summary,
        "parameters": [*_path_parameters(each), *_query_parameters(schemas[each.query_type.__name__])],
        "responses": _responses(each),
    }
    if each.body_type is not None:
        said["requestBody"] = {
            "required": bool(schemas[each.body_type.__name__].get("required")),
            "content": {JSON: {"schema": _ref(each.body_type)}},
        }
    return said


def _operation_id(each: Operation) -> str:
    """Return a name such as `post_jobs_job_id_cancel`; those of `/api` and of `/api/v1` differ."""
    words = re.findall(r"\w+", each.path.removeprefix("/api/"))
    return "_".join([each.method.lower(), *words])


def _path_parameters(each: Operation) -> list[JsonValue]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _PATTERNS[name]}}
        for name in _PARAMETER.findall(each.path)
    ]


def _query_parameters(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    properties = cast("dict[str, dict[str, JsonValue]]", schema["properties"])  # of an object, as each query is
    required = cast("list[str]", schema.get("required", []))  # JSON Schema says so
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": each.get("description", ""),
            "schema": {key: value for key, value in each.items() if key != "description"},
        }
        for name, each in properties.items()
    ]


def _responses(each: Operation) -> JsonValue:
    errors = dict(_ANY_CALL)
    if _PARAMETER.search(each.path) or _is_of_one_queue(each.query_type):
        errors |= _NAMED_CALL
    if each.body_type is not None or each.method == "POST":
        errors |= _SENDING_CALL
    responses: dict[str, JsonValue] = {
        str(int(each.status)): {
            "description": each.status.phrase,
            "content": {each.media_type: {"schema": _answer(each)}},
        }
    }
    responses |= {str(int(status)): {"description": meaning} for status, meaning in each.other_statuses.items()}
    for status, meaning in sorted(errors.items()):
        responses[status] = {"description": meaning, "content": {JSON: {"schema": _ref(Refusal)}}}
    return responses


def _is_of_one_queue(query: type[msgspec.Struct]) -> bool:
    """Tell whether the query names a queue that must be there; where null means any, it is a filter."""
    return any(field.name == "queue" and field.default is not None for field in msgspec.structs.fields(query))


def _answer(each: Operation) -> JsonValue:
    if each.other_answer_type is None:
        return _ref(each.answer_type)
    return {"anyOf": [_ref(each.answer_type), _ref(each.other_answer_type)]}


def _ref(kind: type[msgspec.Struct]) -> JsonValue:
    return {"$ref": _REF.format(name=kind.__name__)}
