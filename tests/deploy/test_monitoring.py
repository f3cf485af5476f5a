"""The dashboard and the alert rules name what a server really exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.edge.metrics_rig import let_everything_happen, samples
from tests.edge.rest_rig import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "gopher.json"
RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
NAME: Final = re.compile(r"\b((?:gopher|process)_[a-z0-9_]+)\b(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r"([a-z_]+) *(?:=~|!~|!=|=)")
OF_THE_SCRAPE: Final = {"job", "instance"}
"""Labels that Prometheus adds."""


def dashboard_queries() -> Iterator[str]:
    board = json.loads(DASHBOARD.read_text())
    yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))
    yield from (each["query"] for each in board["templating"]["list"] if each["type"] == "query")


def alert_queries() -> Iterator[str]:
    """Yield what follows each `expr:`, on the line or indented below it."""
    for part in RULES.read_text().split("expr:")[1:]:
        yield re.split(r"\n +(?:for|labels):", part)[0]


async def test_every_metric_named_is_exported(redis_url: str, namespace: str) -> None:
    """With each label it is picked by; and each panel and rule names one."""
    async with serving(redis_url, namespace) as rest:
        await let_everything_happen(rest)
        await rest.get("/api/v1/queues")
        await rest.call_over_grpc()
        exported: dict[str, set[str]] = {}
        for sample in await samples(rest):
            exported.setdefault(sample.name, set()).update(sample.labels)
    queries = [*dashboard_queries(), *alert_queries()]

    for query in queries:
        named = [(name, labels) for name, labels in NAME.findall(query)]
        assert named or query.strip().startswith("up{"), query
        for name, labels in named:
            assert name in exported, f"{name} in {query}"
            assert set(MATCHER.findall(labels)) <= exported[name] | OF_THE_SCRAPE, query


def test_dashboard_and_rules_are_there_to_be_loaded() -> None:
    """A fair number of each, so that the check above has something to look at."""
    board = json.loads(DASHBOARD.read_text())

    assert len(list(dashboard_queries())) > 25
    assert len(list(alert_queries())) > 8
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
