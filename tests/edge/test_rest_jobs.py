"""Jobs over HTTP, on a real Redis: submitted, looked at in every state, listed, moved and removed."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Final

import pytest
import trio

from gopher.job import JobState, Move
from gopher.wire.shape import job_object, reason_object
from tests.edge.rest_rig import UNKNOWN_ID, send

if TYPE_CHECKING:
    from tests.edge.rest_rig import Rest

SEED: Final = """{
  "type": "email",
  "payload": {
    "to": "user@example.com",
    "subject": "Welcome!",
    "body": "Thank you for signing up."
  },
  "priority": "high",
  "retries": 3
}"""
V1: Final = "/api/v1/jobs"


async def test_seed_submit_is_answered_as_the_seed_shows(rest: Rest) -> None:
    """The original's own JSON gets an id and the word `enqueued`, and nothing else; the job is what was asked for."""
    answer = await send(rest.address, "POST", rest.path("/api/jobs"), SEED.encode())

    job = await rest.get(f"/api/jobs/{answer['job_id']}")
    assert answer.status == 201
    assert answer.json == {"job_id": job["id"], "status": "enqueued"}
    assert job["payload"] == json.loads(SEED)["payload"]
    assert (job["type"], job["priority"], job["max_attempts"]) == ("email", "high", 4)


async def test_tree_of_a_job_is_shown(rest: Rest) -> None:
    """Beside the job, with why there is no task; the original's address knows no view, and no other word is one."""
    job_id = await rest.submit()

    answer = await rest.get(f"{V1}/{job_id}", view="task_tree")
    basic = await rest.get(f"{V1}/{job_id}", view="basic")
    refused = await rest.get(f"{V1}/{job_id}", view="tree")
    original = await rest.get(f"/api/jobs/{job_id}", view="task_tree")

    assert answer.json == {
        "job": basic.json,
        "task_tree": {
            "job_id": job_id,
            "type": "email",
            "state": "enqueued",
            "worker": None,
            "task": None,
            "children": [],
            "omitted_count": 0,
            "note": "it does not run: it is enqueued; no live worker claims from queue 'default'",
        },
    }
    assert (refused.status, refused.reason) == (400, "BAD_ENUM")
    assert original.status == 400


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_seed_submit_works_by_curl(rest: Rest) -> None:
    """The program that the seed's readers have in hand gets the same answer."""
    url = f"http://{rest.address}{rest.path('/api/jobs')}"

    command = ["curl", "-sS", "--max-time", "20", url, "-H", "Content-Type: application/json", "-d", SEED]
    run = await trio.run_process(command, capture_stdout=True)

    answer = json.loads(run.stdout)
    assert set(answer) == {"job_id", "status"}
    assert answer["status"] == "enqueued"
    assert (await rest.get(f"/api/jobs/{answer['job_id']}")).status == 200


async def test_seed_submit_takes_its_own_words_only(rest: Rest) -> None:
    """What the original did not have is refused by name, not dropped."""
    answer = await rest.post("/api/jobs", {"type": "email", "queue": "mail"})

    assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD")
    assert answer.error["message"] == "queue: is not known here; known: type, payload, priority, retries, recurring"


async def bring_to(rest: Rest, state: JobState) -> str:
    """Submit a job, bring it to a state and return its id."""
    job_id = await rest.submit(delay_seconds=3600 if state is JobState.SCHEDULED else 0)
    if state is JobState.CANCELLED:
        await rest.post(f"{V1}/{job_id}/cancel")
    if state in {JobState.PROCESSING, JobState.RETRYING, JobState.COMPLETED, JobState.FAILED}:
        job = await rest.claim()
        moves = {JobState.RETRYING: Move.RETRY, JobState.COMPLETED: Move.COMPLETE, JobState.FAILED: Move.BURY}
        if state in moves:
            await rest.settle(job, moves[state], delay_ms=3_600_000)
    return job_id


@pytest.mark.parametrize("state", JobState)
async def test_job_tells_its_state_attempts_and_times(rest: Rest, state: JobState) -> None:
    """A job is shown in every state it can have, in the shape of `gopher ... --json`."""
    job_id = await bring_to(rest, state)

    answer = await rest.get(f"{V1}/{job_id}")

    job = await rest.store.query.get(rest.namespace, job_id)
    assert answer.json == job_object(job) | {"waiting_reason": reason_object(await rest.store.waiting.explain(job))}
    assert (answer["waiting_reason"] is not None) is (state in {JobState.SCHEDULED, JobState.ENQUEUED, JobState.RETRYING})
    assert (answer["status"], answer["state"]) == (state.value, state.value)
    assert (answer["end_time"] is not None) is state.is_final
    ended = state in {JobState.RETRYING, JobState.COMPLETED, JobState.FAILED}
    assert [each["number"] for each in answer.list("attempts")] == ([1] if ended else [])
    assert (answer["failure"] is not None) is (state in {JobState.RETRYING, JobState.FAILED})


async def test_submit_takes_every_option(rest: Rest) -> None:
    """Each option of a job arrives in the job."""
    options = {
        "queue": "mail",
        "priority": "low",
        "labels": {"tenant": "a b"},
        "retries": 0,
        "backoff_initial_seconds": 0.5,
        "backoff_max_seconds": 60,
        "backoff_multiplier": 1.5,
        "timeout_seconds": 2.5,
        "deadline": "2199-01-01T00:00:00Z",
        "unique_key": "u",
        "request_id": "r",
        "retention_seconds": 90,
    }

    job = await rest.get(f"{V1}/{await rest.submit(**options, execute_at='2190-01-31T12:00:00.250+02:00')}")

    shown = {name: job[name] for name in options if name not in {"retries", "deadline"}}
    assert shown == {name: value for name, value in options.items() if name in shown}
    assert (job["max_attempts"], job["deadline"]) == (1, "2199-01-01T00:00:00.000Z")
    assert (job["state"], job["run_time"]) == ("scheduled", "2190-01-31T10:00:00.250Z")


async def test_payload_keeps_its_numbers(rest: Rest) -> None:
    """A whole number that no float can hold comes back as it was."""
    answer = await send(rest.address, "POST", rest.path(V1), b'{"type":"email","payload":[9007199254740993,1.5,{}]}')

    job = await rest.get(f"{V1}/{answer['job_id']}")
    assert b'"payload":[9007199254740993,1.5,{}]' in job.body


async def test_payload_may_be_bytes(rest: Rest) -> None:
    """What is no JSON travels in base64, there and back."""
    job = await rest.get(f"{V1}/{await rest.submit(payload_base64='AP8=')}")

    assert (job["payload"], job["payload_base64"]) == (None, "AP8=")
    assert job["content_type"] == "application/octet-stream"


async def test_empty_payload_beside_bytes_is_none(rest: Rest) -> None:
    """A client that sends every field may say null for the payload that it does not mean."""
    job = await rest.get(f"{V1}/{await rest.submit(payload=None, payload_base64='AP8=')}")

    assert job["payload_base64"] == "AP8="


async def test_submit_is_repeatable_under_a_request_id(rest: Rest) -> None:
    """The same body under the same request id is the same job; another body is refused."""
    first, second = [await rest.post(V1, {"type": "email", "request_id": "r1"}) for _ in range(2)]
    other = await rest.post(V1, {"type": "email", "request_id": "r1", "payload": 1})

    assert (first["deduplicated"], second["deduplicated"]) == (False, True)
    assert first["job_id"] == second["job_id"]
    assert (other.status, other.reason) == (409, "REQUEST_ID_CONFLICT")


async def test_batch_accepts_and_refuses_each_job_by_itself(rest: Rest) -> None:
    """Of a batch the good jobs are stored and each bad one says why, in order and in the names of its own fields."""
    jobs = [
        {"type": "email", "queue": "q1"},
        {"type": "email", "shape": 1},
        {"type": "email", "backoff_initial_seconds": 2, "backoff_max_seconds": 1},
        {"type": "email", "queue": "q2"},
        7,
    ]

    answer = await rest.post(f"{V1}/batch", {"jobs": jobs})

    results = answer.list("results")
    fields = re.findall(rb'"details":\[{"field":"(\w+)"', answer.body)
    assert answer.status == 200
    assert [each["status"] for each in results] == ["enqueued", None, None, "enqueued", None]
    assert fields == [b"shape", b"backoff_max_seconds", b"body"]
    assert (await rest.get(f"{V1}/{results[3]['job_id']}"))["queue"] == "q2"


async def test_batch_refuses_repeated_keys_where_they_stand(rest: Rest) -> None:
    """In a job they refuse that job; of the batch itself, the batch."""
    body = b'{"jobs":[{"type":"email","payload":{"a":1,"a":2}},{"type":"email","queue":"q","queue":"r"},{"type":"email"}]}'
    path = rest.path(f"{V1}/batch")

    answer = await send(rest.address, "POST", path, body)
    twice = await send(rest.address, "POST", path, b'{"jobs":[],"jobs":[{"type":"email"}]}')

    assert [each["status"] for each in answer.list("results")] == [None, None, "enqueued"]
    assert [str(each["error"]).count("comes twice") > 0 for each in answer.list("results")] == [True, True, False]
    assert (twice.status, twice.reason) == (400, "BAD_JSON")


@pytest.mark.parametrize("count", [0, 1001])
async def test_batch_has_a_size(rest: Rest, count: int) -> None:
    """No job, or too many, is refused whole."""
    answer = await rest.post(f"{V1}/batch", {"jobs": [{"type": "email"}] * count})

    assert (answer.status, answer.reason) == (400, "BATCH_SIZE")
    assert (await rest.get(V1)).list("jobs") == []


async def test_list_filters_and_turns_pages(rest: Rest) -> None:
    """Pages hold each matching job once; the token leads on and is null at the end."""
    wanted = {await rest.submit(queue="mail", labels={"tenant": "a"}) for _ in range(3)}
    await rest.submit(queue="mail", labels={"tenant": "b"})
    await rest.submit(queue="other", labels={"tenant": "a"})
    query = {"queue": "mail", "state": "enqueued", "type": "email", "label": "tenant=a", "page_size": "2"}

    seen: list[object] = []
    token: object = ""
    while token is not None:
        page = await rest.get(V1, **query, page_token=str(token))
        assert page.status == 200
        seen += [job["id"] for job in page.list("jobs")]
        token = page["next_page_token"]

    assert sorted(map(str, seen)) == sorted(wanted)


async def test_page_token_belongs_to_its_list(rest: Rest) -> None:
    """A token that another list has made is refused."""
    for _ in range(3):
        await rest.submit()
    page = await rest.get(V1, page_size="1")

    answer = await rest.get(V1, page_size="1", state="enqueued", page_token=str(page["next_page_token"]))

    assert (answer.status, answer.reason) == (400, "BAD_PAGE_TOKEN")


async def test_cancel_tells_why_and_a_second_one_is_no_error(rest: Rest) -> None:
    """A waiting job is cancelled at once, with the reason; a completed one is not to be cancelled."""
    job_id = await rest.submit()
    done_id = await rest.submit(queue="done")
    await rest.settle(await rest.claim("done"), Move.COMPLETE, queue="done")

    first = await rest.post(f"{V1}/{job_id}/cancel", {"reason": "no longer wanted", "actor": "ann", "grace_seconds": 0})
    second = await rest.post(f"{V1}/{job_id}/cancel")
    refused = await rest.post(f"{V1}/{done_id}/cancel", {})

    assert (first["state"], first["cancel_reason"], first["cancel_actor"]) == ("cancelled", "no longer wanted", "ann")
    assert second.status == 200
    assert (refused.status, refused.reason) == (400, "TERMINAL")


async def test_retry_gives_a_failed_job_new_attempts(rest: Rest) -> None:
    """A dead letter is enqueued again; a job that waits already is not."""
    job_id = await rest.submit()
    await rest.settle(await rest.claim(), Move.BURY)

    answer = await rest.post(f"{V1}/{job_id}/retry")
    again = await rest.post(f"{V1}/{job_id}/retry")

    assert (answer.status, answer["state"], answer["generation"]) == (200, "enqueued", 1)
    assert (again.status, again.reason) == (400, "STATE")


async def test_delete_removes_a_job(rest: Rest) -> None:
    """A job that was deleted is not found any more."""
    job_id = await rest.submit()

    answer = await rest.delete(f"{V1}/{job_id}")

    assert (answer.status, answer.json) == (200, {"job_id": job_id})
    assert (await rest.get(f"{V1}/{job_id}")).status == 404


async def test_namespaces_do_not_see_each_other(rest: Rest) -> None:
    """The namespace is a part of the query; a job of one is not found in another."""
    job_id = await rest.submit()

    answer = await rest.get(f"{V1}/{job_id}", namespace="elsewhere")

    assert (answer.status, answer.reason) == (404, "JOB_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events")]
)
async def test_unknown_job_is_not_found(rest: Rest, method: str, suffix: str) -> None:
    """Whatever is done to a job that there is not is answered by 404."""
    answer = await send(rest.address, method, rest.path(f"{V1}/{UNKNOWN_ID}{suffix}"))

    assert (answer.status, answer.reason) == (404, "JOB_NOT_FOUND")


async def test_unknown_field_is_refused_under_its_own_name(rest: Rest) -> None:
    """Also where gRPC has a field of that name, which REST calls another."""
    refused = await rest.post(V1, {"type": "email", "timeout": 5})

    assert (refused.status, refused.reason) == (400, "UNKNOWN_FIELD")
    assert str(refused.error["message"]).startswith("timeout: is not known here; known: ")
