"""The table of bad inputs over HTTP, against the whole server on a real Redis: status, reason, field, and nothing stored."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from gopher import errors
from gopher.edge import rest_errors
from gopher.edge.rest_errors import HttpError
from gopher.errors import GopherError
from gopher.wire.status import ServerStoppingError, SlowReaderError
from tests.edge.rest_rig import MAX_BODY_BYTES, send, serving

if TYPE_CHECKING:
    from tests.edge.rest_rig import Rest
    from tests.redis_server import RedisServer

V1: Final = "/api/v1/jobs"

BODIES: Final[dict[str, tuple[bytes, str, str, str]]] = {
    "no-json": (b"{", "BAD_JSON", "body", "must be JSON: the text ends too early at offset 1"),
    "no-utf8": (b'{"type":"\xff"}', "BAD_JSON", "body", "must be JSON: no UTF-8 at offset 9"),
    "nan": (b'{"type":"email","payload":NaN}', "BAD_JSON", "body", "at offset 26"),
    "deep": (b'{"type":"email","payload":' + b"[" * 30_000, "BAD_JSON", "body", "nested deeper than 64"),
    "key-twice": (b'{"type":"email","type":"sms"}', "BAD_JSON", "body", "the key 'type' comes twice in an object"),
    "key-twice-escaped": (b'{"type":"email","\\u0074ype":"sms"}', "BAD_JSON", "body", "the key 'type' comes twice in an object"),
    "key-twice-below": (b'{"type":"email","labels":{"a":"1","a":"2"}}', "BAD_JSON", "body", "the key 'a' comes twice in an object"),
    "key-twice-payload": (b'{"type":"email","payload":[{"a":1,"a":2}]}', "BAD_JSON", "body", "the key 'a' comes twice in an object"),
    "no-object": (b"[]", "BAD_TYPE", "body", "must be object, got array"),
    "null": (b"null", "BAD_TYPE", "body", "must be object, got null"),
    "B27": (b"{}", "REQUIRED", "type", "must be set"),
    "B28": (b'{"type":"../../x"}', "BAD_NAME", "type", "must match ^[a-z][a-z0-9_.-]{0,63}$, as mail.welcome does"),
    "B28-line": (b'{"type":"email\\n"}', "BAD_NAME", "type", "must match ^[a-z]"),
    "B30": (b'{"type":"email","queue":"a}b"}', "BAD_NAME", "queue", "must match ^[a-z]"),
    "reason": (b'{"type":"email","non_retryable_reasons":["bad"]}', "BAD_NAME", "non_retryable_reasons[0]", "must match ^[A-Z][A-Z0-9_]{0,62}$, as CARD_DECLINED does"),
    "B32": (b'{"type":"email","payload":"%s"}' % (b"x" * 32_768), "PAYLOAD_TOO_LARGE", "payload", "at most 32768 bytes, got 32770"),
    "B33-large": (b'{"type":"email","payload":1e400}', "BAD_JSON", "payload", "out of range at offset 0"),
    "B35": (b'{"type":"email","payload":%s%s}' % (b"[" * 65, b"]" * 65), "BAD_JSON", "payload", "nested deeper than 64"),
    "B36": (b'{"type":"email","payload":%s}' % (b"1" * 5000), "BAD_JSON", "payload", "out of range at offset 0"),
    "B40": (b'{"type":"email","priority":"urgent"}', "BAD_ENUM", "priority", "must be one of high, normal, low"),
    "B40-type": (b'{"type":"email","priority":1}', "BAD_TYPE", "priority", "must be str, got int"),
    "B41": (b'{"type":"email","retries":-1}', "OUT_OF_RANGE", "retries", "must be int >= 0"),
    "B41-large": (b'{"type":"email","retries":1000000000}', "OUT_OF_RANGE", "retries", "must be int <= 99"),
    "B42": (b'{"type":"email","timeout_seconds":0}', "OUT_OF_RANGE", "timeout_seconds", "must be float >= 0.001"),
    "B42-large": (b'{"type":"email","timeout_seconds":1e15}', "OUT_OF_RANGE", "timeout_seconds", "must be float <= 2592000.0"),
    "B43": (b'{"type":"email","execute_at":"9999-01-01T00:00:00Z"}', "OUT_OF_RANGE", "execute_at", "1970-01-01 and 2200-01-01"),
    "B43-year": (b'{"type":"email","execute_at":"0001-01-01T00:00:00Z"}', "OUT_OF_RANGE", "execute_at", "1970-01-01 and 2200-01-01"),
    "no-zone": (b'{"type":"email","deadline":"2030-01-01T00:00:00"}', "BAD_TIME", "deadline", "with its zone"),
    "no-time": (b'{"type":"email","execute_at":"tomorrow"}', "BAD_TIME", "execute_at", "such as 2030-01-31T12:00:00Z"),
    "B45": (
        b'{"type":"email","delay_seconds":1,"execute_at":"2030-01-01T00:00:00Z"}',
        "CONFLICT", "delay_seconds", "must not be set together with execute_at",
    ),
    "B60": (b'{"type":"email","labels":{"a":"b\\n"}}', "LABELS", "labels['a']", "must not contain control characters"),
    "B60-type": (b'{"type":"email","labels":{"a":1}}', "BAD_TYPE", "labels[...]", "must be str, got int"),
    "backoff": (
        b'{"type":"email","backoff_initial_seconds":2,"backoff_max_seconds":1}',
        "OUT_OF_RANGE", "backoff_max_seconds", "must be at least backoff_initial_seconds",
    ),
    "base64": (b'{"type":"email","payload_base64":"*"}', "BAD_BASE64", "payload_base64", "invalid base64"),
    "two": (b'{"type":"email","payload_base64":"AA==","payload":1}', "CONFLICT", "payload_base64", "together with payload"),
    "unknown": (b'{"type":"email","max_retries":1}', "UNKNOWN_FIELD", "max_retries", "is not known here; known: type, payload,"),
    "long-text": (b'{"type":"email","unique_key":"%s"}' % (b"x" * 256), "OUT_OF_RANGE", "unique_key", "length <= 255"),
    "long-bytes": (b'{"type":"email","unique_key":"%s"}' % ("ä" * 200).encode(), "OUT_OF_RANGE", "unique_key", "at most 255 bytes, got 400"),
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
async def test_bad_job_is_refused_by_the_name_of_its_fault(rest: Rest, case: str) -> None:
    """400 comes with the reason, the field and what would be right; nothing is stored."""
    body, reason, field, text = BODIES[case]

    answer = await send(rest.address, "POST", rest.path(V1), body)

    assert answer.status == 400
    assert (answer.reason, answer.error["code"]) == (reason, "INVALID_ARGUMENT")
    details = answer.error["details"]
    assert isinstance(details, list)
    assert [(each["field"], each["reason"]) for each in details if isinstance(each, dict)] == [(field, reason)]
    assert text in str(answer.error["message"])
    assert (await rest.get(V1)).list("jobs") == []


QUERIES: Final = {
    "?page_size=0": ("OUT_OF_RANGE", "page_size"),
    "?page_size=1001": ("OUT_OF_RANGE", "page_size"),
    "?page_size=x": ("BAD_TYPE", "page_size"),
    "?page_size=1&page_size=2": ("REPEATED", "page_size"),
    "?page_token=AAAA": ("BAD_PAGE_TOKEN", "page_token"),
    "?page_token=%C3%A4": ("BAD_PAGE_TOKEN", "page_token"),
    "?state=done": ("BAD_ENUM", "state"),
    "?queue=A": ("BAD_NAME", "queue"),
    "?queue=null&queue=x": ("REPEATED", "queue"),
    "?namespace=a:b": ("BAD_NAME", "namespace"),
    "?label=x": ("LABELS", "label"),
    "?limit=3": ("UNKNOWN_FIELD", "limit"),
}


@pytest.mark.parametrize("query", QUERIES)
async def test_bad_query_is_refused_by_the_name_of_its_fault(rest: Rest, query: str) -> None:
    """A list refuses what it does not know, and what no list can be asked for."""
    answer = await send(rest.address, "GET", V1 + query)

    details = answer.error["details"]
    assert isinstance(details, list)
    assert answer.status == 400
    assert [(each["reason"], each["field"]) for each in details if isinstance(each, dict)] == [QUERIES[query]]


async def test_queue_called_null_is_a_queue(rest: Rest) -> None:
    """The text `null` in a query is a name, not the absence of one."""
    await rest.submit()

    answer = await rest.get(V1, queue="null")

    assert (answer.status, answer.list("jobs")) == (200, [])


async def test_malformed_id_is_refused(rest: Rest) -> None:
    """What can be no id is not looked for."""
    answer = await rest.get(f"{V1}/nope")

    assert (answer.status, answer.reason) == (400, "BAD_ID")


async def test_unknown_type_is_refused(redis_url: str, namespace: str) -> None:
    """A server that takes known types only says so, and what to do."""
    async with serving(redis_url, namespace, accept_unknown_types=False) as rest:
        answer = await rest.post(V1, {"type": "email"})

    assert (answer.status, answer.reason, answer.error["code"]) == (400, "UNKNOWN_JOB_TYPE", "FAILED_PRECONDITION")


async def test_held_unique_key_is_a_conflict(rest: Rest) -> None:
    """409 names the job that holds the key."""
    job_id = await rest.submit(unique_key="k")

    answer = await rest.post(V1, {"type": "email", "unique_key": "k"})

    assert (answer.status, answer.reason) == (409, "UNIQUE_HELD")
    assert answer.error["metadata"] == {"unique_key": "k", "job_id": job_id}


async def test_body_may_be_as_large_as_a_message(rest: Rest) -> None:
    """The server's limit for a message holds here too."""
    answer = await send(rest.address, "POST", rest.path(V1), b" " * (MAX_BODY_BYTES + 1))

    assert (answer.status, answer.reason) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(("method", "path", "status", "reason"), [
    ("GET", "/api/v1/nope", 404, "PATH_NOT_FOUND"),
    ("GET", "/api/v1/jobs/", 404, "PATH_NOT_FOUND"),
    ("PUT", "/api/v1/jobs", 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/api/v1/jobs/types", 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/api/v1/jobs/batch", 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/api/jobs/x", 405, "METHOD_NOT_ALLOWED"),
])  # fmt: skip
async def test_unknown_paths_are_refused_in_the_one_shape(rest: Rest, method: str, path: str, status: int, reason: str) -> None:
    """Also what no operation has seen is answered in JSON."""
    answer = await send(rest.address, method, path)

    assert (answer.status, answer.reason) == (status, reason)


async def test_redis_that_is_away_is_no_fault_of_the_caller(redis_server: RedisServer) -> None:
    """503 says when to try again, and not where Redis is."""
    async with serving(redis_server.url, "default") as rest:
        redis_server.stop()
        answer = await rest.post(V1, {"type": "email"})

    assert (answer.status, answer.reason) == (503, "BROKER_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert redis_server.url not in answer.body.decode()


@pytest.mark.parametrize(("error", "status"), [
    (GopherError("x"), 500),
    (errors.JobNotFoundError("x"), 404),
    (errors.UniqueKeyHeldError("k", "x"), 409),
    (errors.ConfirmationError("q"), 400),
    (errors.StoreUnavailableError("x"), 503),
    (errors.StoreFullError("x"), 429),
    (errors.CallExpiredError("x"), 504),
    (ServerStoppingError(), 503),
    (SlowReaderError(), 429),
])  # fmt: skip
def test_status_comes_from_the_one_table(error: GopherError, status: int) -> None:
    """HTTP has no table of errors of its own."""
    assert rest_errors.status_of(error) == status


def test_defect_tells_an_id_and_no_more() -> None:
    """What was not meant to be raised is logged; the caller gets the id of that line."""
    known = rest_errors.known(RuntimeError("secret"), "/api/x")

    fault = rest_errors.fault_of(known)
    assert (fault.code, fault.reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in fault.message
    assert fault.metadata["error_id"] in fault.message


def test_http_error_is_no_defect() -> None:
    """A refusal by HTTP's own rules keeps its status, though the table has no row for it."""
    error = HttpError(HTTPStatus.IM_A_TEAPOT, grpc.StatusCode.UNIMPLEMENTED, "TEAPOT", "no coffee here")

    assert rest_errors.known(error, "/api/x") is error
    assert rest_errors.refusal(error).status_code == 418
