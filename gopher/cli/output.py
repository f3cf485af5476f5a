"""The only place that prints: lines, JSON and tables on stdout, faults in one line on stderr; and the exit code of each.

A command returns its exit code, or raises a `GopherError`, whose exit code stands in the table of `gopher.wire.status`.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from cyclopts import App, CycloptsError

from gopher.errors import ConfigError, GopherError, InvalidRequestError, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gopher.job import JsonValue

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
FINDINGS: Final = 2
UNREACHABLE: Final = 5
CANCELLED: Final = 9
INTERRUPTED: Final = 130
READER_GONE: Final = 141

WIDEST_COLUMNS: Final = 10_000
"""Chosen: of a table that goes into a file or a pipe; wide enough for every message."""

FLUSH_SECONDS: Final = 0.5
"""Chosen: what is left unwritten when a process is ended waits for a reader that does not read."""

GAP: Final = 2
"""Between two columns."""
SHORTEST_COLUMN: Final = 12
"""Chosen: what is left of a name when there is little room; no state is longer."""

SHORTEST_SENTENCE: Final = 24
"""Chosen: likewise, of what has words; a cron expression is whole."""

STATE_STYLES: Final = {
    "processing": "cyan",
    "retrying": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "paused": "yellow",
    "draining": "yellow",
    "open": "red",
    "half_open": "yellow",
    "closed": "green",
}

EXIT_CODES: Final = """\
Exit codes, which scripts may rely on:
  0    done
  1    it failed, or the program cannot start
  2    the command line, a setting or a field of the request is wrong; admin audit: there are findings
  3    there is no such job, queue, schedule, bulk operation or worker
  4    its state, or another job, does not allow it
  5    the server, or Redis behind it, cannot be reached
  6    the time was over first; the job goes on
  7    Redis is full
  8    the job failed (submit --wait, submit --watch, watch)
  9    the job was cancelled (the same), or the bulk operation stopped
  70   a server, or gopher dev, whose stop hung has ended itself
  130  interrupted by Ctrl-C
  141  the reader of the output has gone
"""


def guarded(app: App, argv: Sequence[str] | None = None) -> int:
    """Run the application and return the exit code; what goes wrong is told in a line on stderr.

    Args:
        app: Its commands return their exit code or None.
        argv: The arguments; None: those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = app(list(argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nothing more can be said there, and the interpreter must not try to at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except CycloptsError as fault:
        say(f"{' '.join(str(fault).split())} Try --help.")
        return USAGE
    except InvalidRequestError as fault:
        from gopher.cli import wording

        say(wording.told(fault, app, argv))
        return USAGE
    except GopherError as fault:
        return tell(fault)
    except BaseExceptionGroup as group:
        return _tell_only(group)
    return code if isinstance(code, int) else DONE


def end_now(code: int) -> NoReturn:
    """End the process whatever still runs in it, once its output is written.

    Threads of handlers may be left in a worker. After an interrupt threads of gRPC may still be under way in a command, and the
    interpreter's own end has met one with an abort (seen: 1 of 130).
    """
    # In a thread of its own, since a thread that is left behind may hold a stream for ever.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or the application has closed it
            stream.flush()


def _tell_only(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell the one error in a group; a nursery in which one task failed raises such.

    Raises:
        BaseException: The group, when it holds more or something else: a defect of ours, whose traceback is wanted.
    """
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    if isinstance(inner, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(inner, GopherError):
        return tell(inner)
    raise group


def tell(fault: GopherError) -> int:
    """Say what is wrong, a line a problem, and return the exit code."""
    for problem in fault.problems if isinstance(fault, ConfigError) else [fault.message]:
        say(problem)
    if isinstance(fault, StartError):
        return fault.exit_code
    from gopher.wire.status import exit_code_of  # gRPC is loaded only once it is needed

    return exit_code_of(fault)


def say(text: str) -> None:
    """Write a line for people on stderr."""
    print(f"gopher: {one_line(text)}", file=sys.stderr)


def line(text: str) -> None:
    """Write a line on stdout."""
    print(text, flush=True)


def state_line(before: str, state: str, after: str = "") -> None:
    """Write a line with a state in it, in the colour of the state where there is a terminal."""
    if not sys.stdout.isatty():
        line(one_line(before + state + after))
        return
    from rich.console import Console
    from rich.text import Text

    told = Text.assemble(one_line(before), (state, STATE_STYLES.get(state.strip(), "")), one_line(after))
    Console(highlight=False).print(told, soft_wrap=True)


def one_line(text: str) -> str:
    """Return the text with whatever would begin a line or steer a terminal written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def json_line(value: JsonValue) -> None:
    """Write a JSON value as one line on stdout."""
    import msgspec

    line(msgspec.json.encode(value).decode())


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()) -> None:
    """Write a table on stdout, a line a row, as wide as the terminal at most; states have their colour there.

    Where there is no room columns are left out, which is said, and the others are shortened. The first column, which names the thing, is
    always there and whole.

    Args:
        headings: Of the columns.
        rows: Their cells.
        spare: Which columns are left out where there is no room, the first one first; they are never shortened.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Rich takes a pipe for a terminal of 80 columns.
    console = Console(width=None if sys.stdout.isatty() else WIDEST_COLUMNS, highlight=False)
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = fitting(headings, cells, spare, console.width)
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for place in widths:
        drawn.add_column(headings[place], no_wrap=True, overflow="crop")
    for row in cells:
        drawn.add_row(
            *(Text(shortened(row[place], width), STATE_STYLES.get(row[place], "")) for place, width in widths.items())
        )
    console.print(drawn, soft_wrap=True)
    left_out = [heading for place, heading in enumerate(headings) if place not in widths and any(row[place] for row in cells)]
    if left_out:
        console.print(f"(no room for {', '.join(left_out)}; --json shows all)", style="dim")


def fitting(headings: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], room: int) -> dict[int, int]:
    """Return the places of the columns for which there is room, with the width of each."""
    from rich.cells import cell_len

    widths = {place: max(map(cell_len, [heading, *(row[place] for row in rows)])) for place, heading in enumerate(headings)}
    sentences = [place for place in widths if any(" " in row[place] for row in rows)]
    least = {
        place: width
        if place == 0 or headings[place] in spare
        else max(len(headings[place]), min(width, SHORTEST_SENTENCE if place in sentences else SHORTEST_COLUMN))
        for place, width in widths.items()
    }
    for place in map(headings.index, spare):
        if not _fits(least, room):
            del least[place]
    if not _fits(least, room):
        least.update((place, min(least[place], SHORTEST_COLUMN)) for place in sentences if place in least and place > 0)
    for place in reversed(list(least)):
        if not _fits(least, room) and place > 0:
            del least[place]
    kept = {place: widths[place] for place in least}
    while not _fits(kept, room):
        able = [place for place in kept if kept[place] > least[place]]
        if not able:
            break
        kept[max(able, key=kept.__getitem__)] -= 1
    return kept


def _fits(widths: Mapping[int, int], room: int) -> bool:
    return sum(widths.values()) + GAP * (len(widths) - 1) <= room


def shortened(text: str, width: int) -> str:
    """Return the text, no wider than that: of a name the middle is left out, for its end tells it from others; of a sentence the end."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    end = ""
    for each in reversed("" if " " in text else text):
        if cell_len(each + end) > (width - 1) // 2:
            break
        end = each + end
    return f"{set_cell_size(text, max(0, width - 1 - cell_len(end))).rstrip()}…{end}"


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far a long piece of work has come; where nobody watches, nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda count: status.update(f"{count} {what}")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how much of a long piece of work is done, by what is done and of how much; where nobody watches, nothing."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=min(done, total), total=max(total, 1))
