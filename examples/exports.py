"""What a `data_export` job does: writes one table of a SQLite database as a CSV file.

The database is opened read-only, so no job can change it. Table and column names cannot be bound as parameters in SQL: they are
looked up in the schema (by parameter) and only a name found there, quoted, becomes part of a statement.
Paths are taken as they are: whoever may submit such a job may have the worker read and write them.
"""

from __future__ import annotations

import csv
import hashlib
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from examples.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS_A_BATCH: Final = 1_000  # between two reports; some milliseconds of work
LOCK_WAIT_SECONDS: Final = 0.25  # for a writer; a longer wait is the retry's, which holds no slot meanwhile
TABLES: Final = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name"

Cell = str | int | float | bytes | None


@dataclass(frozen=True)
class ExportRequest:
    """The payload of a `data_export` job.

    Attributes:
        database: Path of the SQLite file.
        table: Name of the table or view.
        output: Path of the CSV file; it is replaced when the export is whole. UTF-8, header line, RFC 4180; NULL is an empty field,
            a BLOB is written in hexadecimal digits.
        columns: The columns to write, in this order; empty means all.
    """

    database: str
    table: str
    output: str
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: Where the CSV lies.
        rows: How many, without the header line.
        columns: Their names, in order.
        size_bytes: The file's length.
        sha256: Of the file, in hexadecimal digits.
    """

    path: str
    rows: int
    columns: list[str]
    size_bytes: int
    sha256: str


class ExportRefusedError(Exception):
    """There is no such database, table or column; another attempt would find the same."""


class HashedText:
    """A text file for `csv.writer` that counts and hashes the bytes it passes on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, text: str) -> int:
        """Write in UTF-8."""
        data = text.encode()
        self.digest.update(data)
        self.size_bytes += len(data)
        return self.file.write(data)


def export(request: ExportRequest, report: Callable[[int, int], None]) -> Export:
    """Write the table and return what was written.

    Args:
        request: What to export.
        report: Called after each batch with the rows written and the rows there are; what it raises ends the export.

    Raises:
        ExportRefusedError: The database, the table or a column does not exist.
        sqlite3.OperationalError: The database is locked by a writer.
        OSError: The output cannot be written.
    """
    with _opened(Path(request.database)) as database:
        columns = _known_columns(database, request)
        table = _quoted(request.table)
        (total,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # a quoted name from the schema
        with replacing(Path(request.output)) as file:
            text = HashedText(file)
            writer = csv.writer(text)
            writer.writerow(columns)
            rows = 0
            for batch in _batches(database, f"SELECT {', '.join(map(_quoted, columns))} FROM {table}"):  # noqa: S608  # as above
                writer.writerows(batch)
                rows += len(batch)
                report(rows, total)
    return Export(request.output, rows, columns, text.size_bytes, text.digest.hexdigest())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ExportRefusedError(f"no such database: {path}")
    with closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT_SECONDS, isolation_level=None)
    ) as database:
        database.execute("BEGIN")  # schema, count and rows come from one snapshot
        try:
            yield database
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise ExportRefusedError(f"{path} is not a SQLite database that can be read: {error}") from error


def _known_columns(database: sqlite3.Connection, request: ExportRequest) -> list[str]:
    """Return the columns to write, each one found in the schema."""
    tables = [name for (name,) in database.execute(TABLES)]
    if request.table not in tables:
        raise ExportRefusedError(f"no table {request.table!r} in {request.database}; there are: {', '.join(tables) or 'none'}")
    known = [name for (name,) in database.execute("SELECT name FROM pragma_table_info(?)", (request.table,))]
    unknown = [name for name in request.columns if name not in known]
    if unknown:
        raise ExportRefusedError(f"no column {unknown[0]!r} in table {request.table!r}; there are: {', '.join(known)}")
    return request.columns or known


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _batches(database: sqlite3.Connection, statement: str) -> Iterator[list[list[Cell]]]:
    cursor = database.execute(statement)
    while rows := cursor.fetchmany(ROWS_A_BATCH):
        yield [[cell.hex() if isinstance(cell, bytes) else cell for cell in row] for row in rows]
