"""Whatever schemathesis makes of the OpenAPI document, a real server answers it as the document says, and without a defect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gopher.client import Client
from tests.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import APIOperation, Case

    from tests.redis_server import RedisServer

EXAMPLES: Final = 12
"""Of each operation, for each mode and each kind of path."""
OPERATIONS: Final = 43
PATIENCE_SECONDS: Final = 30.0
EVENTS: Final = "/api/v1/jobs/{job_id}/events"
"""Of a job that is there it has no end."""
BATCH: Final = "/api/v1/jobs/batch"
"""It answers 200 and refuses each job by itself."""
CHECKS: Final = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def addresses(redis_server: RedisServer) -> Iterator[dict[str, str]]:
    """A server with a Redis of its own: the namespaces that are made up here are many."""
    arguments = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--accept-unknown-types"]
    environ = {**os.environ, "GOPHER_REDIS_URL": redis_server.url}
    with Program("gopher.cli.server", *arguments, environ=environ) as program:
        yield program.wait_ready()


def fill(address: str) -> dict[str, str]:
    """Put one thing of each kind there; return what stands in the path to each."""
    with Client(address) as client:
        job_id = client.submit("email", {"to": "x"})
        client.create_schedule("nightly", "0 2 * * *", "email")
    return {"job_id": job_id, "name": "nightly", "queue": "default", "type": "email"}


def faults(
    operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, base_url: str, path_parameters: dict[str, str] | None
) -> list[str]:
    """Send what schemathesis makes of an operation, and return what is wrong with the answers."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case=operation.as_strategy(mode, path_parameters=path_parameters))
    def send(case: Case[Any]) -> None:
        checks = CHECKS if operation.path == BATCH else [*CHECKS, negative_data_rejection]
        case.call_and_validate(base_url=base_url, checks=checks, timeout=PATIENCE_SECONDS)

    try:
        send()
    except FailureGroup as group:
        return [f"{operation.label}: {group.message}"]
    return []


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_answers_what_is_made_of_the_document(addresses: dict[str, str], mode: GenerationMode) -> None:
    """Good and bad requests get a status that is told of, in the shape that is told of, and never a 5xx; bad ones are refused."""
    base_url = f"http://{addresses['http']}"
    there = fill(addresses["grpc"])
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    read = list(schema.get_all_operations())
    operations = [each.ok() for each in read if isinstance(each, Ok)]

    found: list[str] = []
    for each in sorted(operations, key=lambda each: each.method == "delete"):
        names = {parameter.name for parameter in each.path_parameters}
        found += faults(each, mode, base_url, None)
        if names and names <= there.keys() and each.path != EVENTS:
            found += faults(each, mode, base_url, {name: there[name] for name in names})

    assert len(operations) == len(read) == OPERATIONS
    assert found == [], "\n".join(found)
