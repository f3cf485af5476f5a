"""`examples.demo.board`: what is shown of the jobs, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console

from examples.demo.board import Board


def shown(*, is_terminal: bool, updates: list[tuple[str, int, float, str]]) -> str:
    """Return what a board with one job writes."""
    output = io.StringIO()
    with Board(Console(file=output, force_terminal=is_terminal, width=140)) as board:
        board.add("1", "thumbnails of sunset.jpg", "image_processing")
        for state, attempt, share, note in updates:
            board.update("1", state=state, attempt=attempt, share=share, note=note)
    return output.getvalue()


def test_board_writes_one_line_a_change_when_there_is_no_terminal() -> None:
    """Without a terminal each change of state is a plain line, progress in between is left out, and no escape code is written."""
    updates = [("processing", 1, 0.0, ""), ("processing", 1, 0.5, "half"), ("completed", 1, 1.0, "6 files [not markup]")]

    lines = shown(is_terminal=False, updates=updates).splitlines()

    assert "\x1b" not in "".join(lines)
    assert [re.sub(r"^ *[0-9.]+ s  ", "", line).split() for line in lines[:3]] == [
        ["enqueued", "image_processing", "thumbnails", "of", "sunset.jpg"],
        ["processing", "image_processing", "thumbnails", "of", "sunset.jpg", "attempt", "1"],
        ["completed", "image_processing", "thumbnails", "of", "sunset.jpg", "attempt", "1", "6", "files", "[not", "markup]"],
    ]


def test_board_ends_with_a_summary_when_there_is_no_terminal() -> None:
    """Below the lines stands the table, once, with what each job has come to."""
    output = io.StringIO()

    with Board(Console(file=output, width=140)) as board:
        board.add("1", "[mail] to ada@example.com", "email")
        board.update("1", state="completed", attempt=2, share=1.0, note="")
        board.note("1", "delivered [once]")

    *_, heading, row = output.getvalue().splitlines()
    assert heading.split() == ["job", "type", "state", "attempt", "progress"]
    assert re.fullmatch(r"\[mail\] to ada@example.com +email +completed +2 +\S+ +delivered \[once\] *", row)


def test_board_shows_the_last_state_on_a_terminal() -> None:
    """On a terminal the table is drawn again at each change, progress too, and its last state stays."""
    frames = shown(is_terminal=True, updates=[("processing", 1, 0.5, "half"), ("failed", 2, 0.5, "[no mailbox]")])

    assert "half" in frames
    last = frames[frames.rindex("thumbnails of sunset.jpg") :]
    assert re.search(r"failed.* 2 .*\[no mailbox\]", last)
