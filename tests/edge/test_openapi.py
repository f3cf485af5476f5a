"""The OpenAPI document is true: every operation it tells of is there and answers as told, and what it forbids is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from gopher.breaker import Breaker
from gopher.job import Move
from gopher.store import keys
from tests.edge.json_schema import Schemas
from tests.edge.rest_rig import UNKNOWN_ID, send
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gopher.job import JsonValue
    from tests.edge.rest_rig import Answer, Rest

JSON: Final = "application/json"
PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "rest.md").read_text()
V1: Final = "/api/v1"


class Told(NamedTuple):
    """An operation as the document tells of it."""

    method: str
    path: str
    about: Mapping[str, JsonValue]

    def schema(self, status: int, media_type: str = JSON) -> Mapping[str, JsonValue]:
        """Return the schema of an answer; fails if the document does not tell of it."""
        found: JsonValue = dict(self.about)
        for key in ("responses", str(status), "content", media_type, "schema"):
            assert isinstance(found, dict)
            assert key in found, f"{self.method} {self.path} answers {status}, which is not told of"
            found = found[key]
        assert isinstance(found, dict)
        return found


async def document_of(rest: Rest) -> tuple[Schemas, list[Told]]:
    answer = await send(rest.address, "GET", "/openapi.json")
    document = answer.json
    assert isinstance(document, dict)
    paths = document["paths"]
    assert isinstance(paths, dict)
    told = []
    for path, by_method in paths.items():
        assert isinstance(by_method, dict)
        told += [Told(method.upper(), path, about) for method, about in by_method.items() if isinstance(about, dict)]
    return Schemas(document), told


async def endless_operation(rest: Rest) -> str:
    """Return the id of a bulk operation that is said to run, and that no server will end."""
    operation_id = str((await rest.post(f"{V1}/bulk-operations", {"kind": "retry", "type": "none"}))["id"])

    async def has_ended() -> bool:
        return (await rest.get(f"{V1}/bulk-operations/{operation_id}"))["state"] == "completed"

    await until_async(has_ended)
    await rest.store.link.call("HSET", keys.bulk_operation(rest.namespace, operation_id), "state", "running")
    return operation_id


async def prepare(rest: Rest) -> dict[str, str]:
    """Fill a namespace with jobs in several states; return the ids of some by what they are good for."""
    await rest.add_worker("w1", ["email"])
    await rest.store.breakers.declare(rest.namespace, "smtp", Breaker(), ["email"])
    await rest.post(f"{V1}/schedules", BODIES[f"{V1}/schedules"] | {"name": "nightly"})
    for queue in ("done", "dead"):
        await rest.submit(queue=queue, labels={"a": "b"})
        await rest.settle(await rest.claim(queue), Move.COMPLETE if queue == "done" else Move.BURY, queue=queue)
    dead = (await rest.get(f"{V1}/failed")).list("jobs")[0]["id"]
    names = ("get", "delete", "cancel", "events")
    bulk = {"operation": await endless_operation(rest)}
    return {name: await rest.submit(queue="default") for name in names} | {"retry": str(dead)} | bulk


BODIES: Final[dict[str, dict[str, JsonValue]]] = {
    "/api/jobs": {"type": "email", "payload": {"to": "x"}, "priority": "high", "retries": 3},
    f"{V1}/jobs": {"type": "email", "execute_at": "2190-01-01T00:00:00Z", "labels": {"a": "b"}, "retries": None},
    f"{V1}/jobs/batch": {"jobs": [{"type": "email"}, {"type": "email", "queue": "q", "timeout_seconds": 1.5}]},
    f"{V1}/jobs/{{job_id}}/cancel": {"reason": "no longer wanted", "grace_seconds": 1.5, "wait": False},
    f"{V1}/queues/{{queue}}/purge": {"confirm": "default"},
    f"{V1}/failed/retry": {"queue": "dead", "job_ids": []},
    f"{V1}/failed/purge": {"queue": "default", "confirm": "default"},
    f"{V1}/bulk-operations": {
        "kind": "retry",
        "states": ["failed"],
        "queue": "default",
        "submitted_before": "2000-01-01T00:00:00Z",
    },
    f"{V1}/rate-limits/{{type}}": {"rate": {"count": 10, "burst": 2}, "concurrency_per_key": 3},
    f"{V1}/queues/{{queue}}": {"priority_ratio": {"high": 1, "normal": 1, "low": 1}, "limits": {"concurrency": 100}},
    f"{V1}/breakers/{{name}}": {"control": "open"},
    f"{V1}/schedules": {
        "name": "weekly",
        "cron": "@weekly",
        "jitter_seconds": 1.5,
        "job": {"type": "email", "labels": {"a": "b"}},
    },
    f"{V1}/schedules/{{name}}": {"cron": "0 2 * * *", "time_zone": "Asia/Tokyo", "overlap": "queue", "job": {"type": "email"}},
}


def path_for(each: Told, ids: Mapping[str, str]) -> str:
    """Return the path with something in it that is there."""
    word = each.method.lower() if each.path.endswith("{job_id}") else each.path.rpartition("/")[2]
    path = each.path.replace("{operation_id}", ids["operation"])
    path = path.replace("schedules/{name}", "schedules/nightly")
    path = path.replace("{type}", "email").replace("{name}", "smtp").replace("{worker_id}", "w1")
    return path.replace("{job_id}", ids.get(word, UNKNOWN_ID)).replace("{queue}", "default")


async def ask(rest: Rest, each: Told, path: str, body: JsonValue = None) -> Answer:
    said = json.dumps(body).encode() if "requestBody" in each.about and body is not None else b""
    query = {"cron": "@daily"} if path.endswith("schedule-times") else {}
    return await send(rest.address, each.method, rest.path(path, **query), said)


def value_of(answer: Answer) -> JsonValue:
    """Return the body; of a stream, the data of its first event."""
    if answer.headers["content-type"] == JSON:
        return answer.json
    data = re.search(rb"data: (.*)\n\n", answer.body)
    assert data is not None
    found: JsonValue = json.loads(data[1])
    return found


async def test_every_operation_answers_as_told(rest: Rest) -> None:
    """What is asked for as the document says is answered by the first status it names, in the shape it gives."""
    schemas, told = await document_of(rest)
    ids = await prepare(rest)
    await rest.post(f"{V1}/jobs/{ids['events']}/cancel")

    faults: list[str] = []
    # What takes away comes last.
    order = sorted(told, key=lambda each: (each.path.endswith(("purge", "failed/retry")), each.method == "DELETE"))
    for each in order:
        body = BODIES.get(each.path)
        answer = await ask(rest, each, path_for(each, ids), body)
        responses = each.about["responses"]
        assert isinstance(responses, dict)
        if str(answer.status) != next(iter(responses)):
            faults.append(f"{each.method} {each.path}: {answer.status} {answer.body!r}")
            continue
        schema = each.schema(answer.status, answer.headers["content-type"])
        faults += [f"{each.method} {each.path} {fault}" for fault in schemas.faults(schema, value_of(answer))]

    assert len(told) == len(rest.operations) == 43
    assert faults == []


async def test_every_operation_refuses_as_told(rest: Rest) -> None:
    """A query, a body and a name that do not fit are refused by a status of the document, in the one shape of errors."""
    schemas, told = await document_of(rest)
    faults: list[str] = []

    for each in told:
        path = (
            each.path.replace("{job_id}", UNKNOWN_ID)
            .replace("{queue}", "nope")
            .replace("{operation_id}", UNKNOWN_ID)
            .replace("{worker_id}", "w9")
            .replace("{type}", "email")
            .replace("{name}", "smtp")
        )
        answers = [await send(rest.address, each.method, f"{path}?no=1")]
        answers.append(await send(rest.address, each.method, path, b"", {"Origin": "http://elsewhere"}))
        if "requestBody" in each.about:
            answers += [await ask(rest, each, path, {"no": 1}), await ask(rest, each, path, [])]
            answers.append(await send(rest.address, each.method, path, b"x", {"Content-Type": "text/plain"}))
        if "{" in path + each.path and not path.endswith(("pause", "email")):
            answers.append(await ask(rest, each, path, {}))
        for answer in answers:
            if answer.status < 400:
                faults.append(f"{each.method} {each.path}: {answer.status}")
            faults += schemas.faults(each.schema(answer.status), answer.json)

    assert faults == []


FIELDS: Final[dict[str, JsonValue]] = {
    "payload": {"a": [1, None]},
    "priority": "low",
    "retries": 99,
    "queue": "q",
    "labels": {"k": "v"},
    "backoff_initial_seconds": 0.001,
    "backoff_max_seconds": 604_800,
    "backoff_multiplier": 10,
    "timeout_seconds": 2_592_000,
    "execute_at": "2030-01-31T12:00:00Z",
    "delay_seconds": 315_360_000,
    "deadline": "2199-12-31T23:59:59Z",
    "unique_key": "k" * 255,
    "limit_key": "k" * 255,
    "non_retryable_reasons": ["NO_SUCH_USER"],
    "request_id": "r",
    "retention_seconds": 0,
    "payload_base64": "AA==",
    "recurring": {"cron_expression": "0 2 * * *", "time_zone": "Europe/Berlin"},
}


async def test_document_and_server_agree_on_what_a_job_may_say(rest: Rest) -> None:
    """Each field of the document is taken at its bounds; what the document forbids is refused, and the other way round."""
    schemas, _ = await document_of(rest)
    schema = schemas.named("SubmitBody")
    properties = schema["properties"]
    assert isinstance(properties, dict)
    wrong: list[JsonValue] = [-1, 1e9, 10**10, "", "A b", "x" * 300, [], [1], {}, {"a": 1}, True, None, 1.5, "high", "q"]

    disagreements = []
    for name in properties:
        for value in [FIELDS.get(name), *wrong]:
            body: dict[str, JsonValue] = {"type": "email", name: value}
            answer = await rest.post(f"{V1}/jobs", body)
            is_allowed = not schemas.faults(schema, body)
            if (answer.status == 201) is not is_allowed:
                disagreements.append((name, value, answer.status))

    assert set(properties) == {"type", *FIELDS}
    assert disagreements == []


async def test_query_parameters_are_the_ones_told(rest: Rest) -> None:
    """Each parameter of each operation is taken, at its default."""
    _, told = await document_of(rest)
    refused = []

    for each in told:
        parameters = each.about["parameters"]
        assert isinstance(parameters, list)
        names = [str(said["name"]) for said in parameters if isinstance(said, dict) and said["in"] == "query"]
        samples = {"page_size": "1", "page_token": "", "state": "failed", "label": "a=b", "namespace": rest.namespace}
        samples |= {"count": "1", "after": "2030-01-31T12:00:00Z", "cron": "@daily", "time_zone": "UTC"}
        query = "&".join(f"{name}={samples.get(name, 'default')}" for name in names)
        answer = await send(
            rest.address, each.method, each.path.replace("{job_id}", UNKNOWN_ID).replace("{queue}", "q") + f"?{query}"
        )
        if answer.status >= 400 and answer.reason in {"UNKNOWN_FIELD", "BAD_TYPE", "REPEATED"}:
            refused.append((each.path, answer.error))

    assert refused == []


async def test_names_in_paths_have_the_pattern_told(rest: Rest) -> None:
    """Ids that were given and queues that exist fit the pattern of the document; what does not fit is refused."""
    _, told = await document_of(rest)
    job_id = await rest.submit(queue="q.1_x-y")
    patterns: dict[str, set[str]] = {}

    for each in told:
        parameters = each.about["parameters"]
        assert isinstance(parameters, list)
        for said in parameters:
            assert isinstance(said, dict)
            if said["in"] == "path":
                schema = said["schema"]
                assert isinstance(schema, dict)
                patterns.setdefault(str(said["name"]), set()).add(str(schema["pattern"]))
    refused = [await rest.get(f"{V1}/jobs/{job_id.upper()}"), await rest.get(f"{V1}/queues/Q")]

    assert {name: len(found) for name, found in patterns.items()} == {
        "job_id": 1,
        "queue": 1,
        "operation_id": 1,
        "worker_id": 1,
        "type": 1,
        "name": 1,
    }
    assert re.search(patterns["job_id"].pop(), job_id)
    assert re.search(patterns["queue"].pop(), "q.1_x-y")
    assert [each.status for each in refused] == [400, 400]


async def test_page_names_every_operation(rest: Rest) -> None:
    """docs/rest.md has every path of the document, and no other."""
    _, told = await document_of(rest)

    named = set(re.findall(r"`(?:GET |POST |PUT |PATCH |DELETE )?(/api/[\w/{}-]+)`", PAGE))

    assert named == {each.path for each in told}


async def test_operation_ids_are_unique(rest: Rest) -> None:
    """Generators of clients name their functions by them."""
    _, told = await document_of(rest)

    ids = [str(each.about["operationId"]) for each in told]

    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("schema", "value"), [
    ({"type": "integer"}, True),
    ({"type": "boolean"}, 1),
    ({"enum": ["a"]}, "b"),
    ({"type": "object", "required": ["a"]}, {}),
    ({"type": "object", "properties": {}, "additionalProperties": False}, {"a": 1}),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
    ({"type": "array", "items": {"type": "string"}}, [1]),
])  # fmt: skip
def test_checker_finds_faults(schema: Mapping[str, JsonValue], value: JsonValue) -> None:
    """The tests above would notice."""
    checker = Schemas({"components": {"schemas": {}}})

    assert checker.faults(schema, value)
