"""What the demo shows while its jobs run: a live table on a terminal, one line a change elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

STYLES: Final = {
    "enqueued": "cyan",
    "processing": "bold yellow",
    "retrying": "magenta",
    "completed": "green",
    "failed": "bold red",
}
BAR_WIDTH: Final = 10  # characters


@dataclass
class Row:
    """One job as it is shown.

    Attributes:
        title: What the job does.
        type: Its type.
        state: Where it stands.
        attempt: Number of the last attempt; 0 before the first.
        share: How much is done, 0 to 1.
        note: What it says of itself, or why it failed.
    """

    title: str
    type: str
    state: str = "enqueued"
    attempt: int = 0
    share: float = 0.0
    note: str = ""


class Board:
    """The jobs by id, in the order they were added; shown for the length of a `with` block.

    Args:
        console: Where to show them.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, Row] = {}
        self.started = time.monotonic()
        # Redrawn at each change and at no other time: no thread draws beside the loop.
        self.live = Live(get_renderable=self.table, console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Show the table."""
        if self.live is not None:
            self.live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave its last state on the screen, as the summary."""
        if self.live is None:
            self.console.print(self.table())
        else:
            self.live.refresh()
            self.live.stop()

    def add(self, job_id: str, title: str, job_type: str) -> None:
        """Show one more job."""
        self.rows[job_id] = Row(title, job_type)
        self._show(self.rows[job_id], is_new_state=True)

    def update(self, job_id: str, *, state: str, attempt: int, share: float, note: str) -> None:
        """Show what has become of a job."""
        row = self.rows[job_id]
        is_new_state = (row.state, row.attempt) != (state, attempt)
        row.state, row.attempt, row.share, row.note = state, attempt, share, note
        self._show(row, is_new_state=is_new_state)

    def note(self, job_id: str, text: str) -> None:
        """Say in the summary what a job has come to."""
        self.rows[job_id].note = text

    def say(self, text: str) -> None:
        """Tell what happens beside the jobs."""
        self.console.print(text, style="bold", markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Return the table as it stands."""
        table = Table(box=None, pad_edge=False, expand=True)
        for heading in ("job", "type", "state", "attempt", "progress"):
            table.add_column(heading, no_wrap=True)
        table.add_column("", overflow="ellipsis", no_wrap=True, ratio=1)
        for row in self.rows.values():
            table.add_row(
                Text(row.title),
                Text(row.type),
                Text(row.state, style=STYLES.get(row.state, "")),
                str(row.attempt or ""),
                ProgressBar(total=1.0, completed=row.share, width=BAR_WIDTH),
                Text(row.note, style="dim"),
            )
        return table

    def _show(self, row: Row, *, is_new_state: bool) -> None:
        if self.live is not None:
            self.live.refresh()
        elif is_new_state:
            seconds = time.monotonic() - self.started
            attempt = f"attempt {row.attempt}" if row.attempt else ""
            line = f"{seconds:6.2f} s  {row.state:<10}  {row.type:<16}  {row.title:<34}  {attempt:<10} {row.note}"
            self.console.out(line.rstrip(), highlight=False)
