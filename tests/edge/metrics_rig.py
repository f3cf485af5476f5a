"""What `/metrics` tells, taken apart by Prometheus's own parser, of a server where everything has happened once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from gopher.breaker import Breaker
from gopher.job import Move
from tests.edge.rest_rig import send

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Sample

    from tests.edge.rest_rig import Rest

FIGURES = {
    "attempts:email:succeeded": 3,
    "attempts:email:raised": 1,
    "duration:email:-4": 4,
    "duration_us:email": 900_000,
    "wait:normal:0": 4,
    "wait_ms:normal": 3_500,
    "leases_lost": 2,
}


async def let_everything_happen(rest: Rest) -> None:
    """Submit jobs, end one, have a worker live and bring figures."""
    await rest.submit()
    await rest.submit(priority="high")
    await rest.settle(await rest.claim(), Move.COMPLETE)
    await rest.add_worker("w1", ["email"])
    await rest.store.figures.count(rest.namespace, "default", worker="w1", number=1, fields=FIGURES)
    await rest.store.breakers.declare(rest.namespace, "smtp", Breaker(), ["email"])


async def families(rest: Rest, namespace: str | None = None) -> dict[str, Metric]:
    """Ask for the metrics; a family by its name."""
    answer = await send(rest.address, "GET", f"/metrics?namespace={namespace or rest.namespace}")
    assert answer.status == 200, answer.body
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


async def samples(rest: Rest) -> list[Sample]:
    """Ask for the metrics; every sample there is."""
    return [sample for family in (await families(rest)).values() for sample in family.samples]
