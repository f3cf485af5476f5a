"""What a run leaves behind: the table on standard output and the JSON file."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.children import ROOT
from benchmarks.plan import BULLMQ, DRAMATIQ, GOPHER, OTHER, YARDSTICK, Plan
from benchmarks.targets import FIGURES, Figure, Results, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS: Final = (GOPHER, BULLMQ, DRAMATIQ, YARDSTICK, OTHER)
RESULTS: Final = ROOT / "benchmarks" / "results"
TABLE_WIDTH: Final = 150
"""Characters, where standard output is no terminal that tells its width."""


def print_table(results: Results, machine: Mapping[str, object], notes: Sequence[str]) -> None:
    """Print medians, ranges, ratios and verdicts, then the machine and what is missing."""
    table = Table(title="Gopher beside its peers: median, and below it lowest..highest", title_justify="left")
    table.add_column("figure", no_wrap=True)
    columns = [column for column in COLUMNS if any(column in row for row in results.values())]
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column("target")
    for figure in FIGURES:
        if (row := results.get(figure.name)) is not None:
            table.add_row(figure.title, *(_cell(figure, row.get(column)) for column in columns), _verdicts(figure, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(table)
    console.print(_machine_line(machine), highlight=False, markup=False)
    console.print("the yardstick of SubmitJob is a bare grpc.aio server that only answers", highlight=False)
    for note in notes:
        console.print(note, highlight=False, markup=False)


def write_json(results: Results, machine: Mapping[str, object], notes: Sequence[str], plan: Plan) -> str:
    """Write all values of the run and return the path of the file, from the top of the repository."""
    now = datetime.now(UTC)
    document = {
        "taken": now.isoformat(timespec="seconds"),
        "machine": machine,
        "plan": asdict(plan),
        "figures": {name: {column: _summary(values) for column, values in row.items()} for name, row in results.items()},
        "targets": [asdict(verdict) | {"figure": figure.name} for figure in FIGURES for verdict in _judged(figure, results)],
        "notes": notes,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return str(path.relative_to(ROOT))


def _cell(figure: Figure, values: list[float] | None) -> str:
    if not values:
        return ""
    middle, low, high = (f"{value:,.{figure.digits}f}" for value in (median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle}\n[dim]{low}..{high}[/]"


def _judged(figure: Figure, results: Results) -> list[Verdict]:
    row = results.get(figure.name, {})
    if not (own := row.get(GOPHER)):
        return []
    verdicts = (judge(target, own, row.get(target.against or "")) for target in figure.targets)
    return [verdict for verdict in verdicts if verdict is not None]


def _verdicts(figure: Figure, row: dict[str, list[float]]) -> str:
    return "\n".join(_verdict(verdict) for verdict in _judged(figure, {figure.name: row}))


def _verdict(verdict: Verdict) -> str:
    target = verdict.target
    sign = ">=" if target.at_least else "<="
    words = [] if target.against is None else [f"{verdict.value:.2f} x {target.against}"]
    words.append(f"{sign} {target.bound:,g} {_word(is_met=verdict.met)}")
    if target.goal is not None:
        words.append(f"design {sign} {target.goal:g} {_word(is_met=verdict.goal_met)}")
    return "; ".join(words)


def _word(*, is_met: bool) -> str:
    return "[green]met[/]" if is_met else "[red]missed[/]"


def _summary(values: list[float]) -> dict[str, object]:
    return {"median": median(values), "values": values}


def _machine_line(machine: Mapping[str, object]) -> str:
    facts = (f"{machine['processor']}, {machine['cores']} cores", machine["python"], f"Redis {machine['redis']}")
    return ", ".join(map(str, facts)) + f", load average {machine['load_average']}, afterwards {machine['load_average_after']}"
