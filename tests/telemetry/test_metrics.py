"""The declarations of the metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gopher.telemetry import metrics
from gopher.telemetry.metrics import Kind, Metric

DECLARED: Final = [each for each in vars(metrics).values() if isinstance(each, Metric)]
PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "observability.md"


def test_names_follow_prometheus() -> None:
    """Each once, with our prefix; counters end in `_total` and nothing else does; lengths of time and sizes are in base units."""
    names = [each.name for each in DECLARED]

    assert len(set(names)) == len(names)
    for each in DECLARED:
        assert re.fullmatch(r"gopher_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind is Kind.COUNTER)
        assert each.kind is not Kind.HISTOGRAM or each.name.endswith("_seconds")
        assert not re.search(r"_(ms|milliseconds|kib|mib|mb|percent)\b", each.name)
        assert each.tells.endswith(".")


def test_no_metric_has_a_label_without_bound() -> None:
    """A job's id, a payload or a text of an error would be a series each."""
    allowed = {
        "namespace", "queue", "state", "priority", "type", "outcome", "worker", "method", "code", "path", "status", "script", "version",
        "breaker", "function",
    }  # fmt: skip

    assert {label for each in DECLARED for label in each.labels} <= allowed


def test_page_tells_of_every_metric_and_label() -> None:
    """And of none that there is not."""
    page = PAGE.read_text()

    named = set(re.findall(r"`(gopher_[a-z_]+)`", page))

    assert named == {each.name for each in DECLARED}
    for label in {label for each in DECLARED for label in each.labels}:
        assert f"`{label}`" in page
