"""`examples.exports`: a table of a real SQLite database as CSV."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from examples.exports import ROWS_A_BATCH, ExportRefusedError, ExportRequest, export

ORDERS = ROWS_A_BATCH * 2 + 1


def ignore(rows: int, total: int) -> None:
    pass


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop 100%?.sqlite"  # characters that mean something in a URI
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE "order ""lines""" (id INTEGER PRIMARY KEY, name TEXT, price REAL, "select" BLOB)')
        database.executemany(
            'INSERT INTO "order ""lines""" VALUES (?, ?, ?, ?)',
            [(number, f'näme "{number}", a', number / 4, None) for number in range(ORDERS)],
        )
        database.execute("CREATE TABLE odd (value)")
        database.executemany("INSERT INTO odd VALUES (?)", [(None,), (2**63 - 1,), (b"\x00\xff",), ("two\nlines",)])
        database.execute('CREATE VIEW cheap AS SELECT id FROM "order ""lines""" WHERE price < 1 ORDER BY id')
    return path


def request_for(shop: Path, table: str = 'order "lines"', columns: list[str] | None = None) -> ExportRequest:
    return ExportRequest(str(shop), table, str(shop.parent / "out" / "table.csv"), columns or [])


def read_rows(path: str) -> list[list[str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_export_writes_the_whole_table(shop: Path) -> None:
    """Every row is in the file, in order, under a header line; row count, length and SHA-256 are the file's."""
    made = export(request_for(shop), ignore)

    content = Path(made.path).read_bytes()
    assert read_rows(made.path) == [
        ["id", "name", "price", "select"],
        *([str(number), f'näme "{number}", a', str(number / 4), ""] for number in range(ORDERS)),
    ]
    assert (made.rows, made.size_bytes, made.sha256) == (ORDERS, len(content), hashlib.sha256(content).hexdigest())
    assert made.columns == ["id", "name", "price", "select"]


def test_export_writes_only_the_columns_asked_for(shop: Path) -> None:
    """Columns come in the order of the request, also one named like an SQL word."""
    made = export(request_for(shop, columns=["select", "id"]), ignore)

    assert read_rows(made.path)[:2] == [["select", "id"], ["", "0"]]


def test_export_writes_each_kind_of_value(shop: Path) -> None:
    """NULL is empty, a large integer exact, a BLOB hexadecimal, a line break quoted."""
    made = export(request_for(shop, table="odd"), ignore)

    assert read_rows(made.path) == [["value"], [""], ["9223372036854775807"], ["00ff"], ["two\nlines"]]


def test_export_takes_a_view(shop: Path) -> None:
    """A view is exported like a table."""
    made = export(request_for(shop, table="cheap"), ignore)

    assert read_rows(made.path) == [["id"], ["0"], ["1"], ["2"], ["3"]]


def test_export_reports_after_each_batch(shop: Path) -> None:
    """Each report gives the rows written and the rows there are."""
    reports: list[tuple[int, int]] = []

    export(request_for(shop), lambda rows, total: reports.append((rows, total)))

    assert reports == [(1_000, ORDERS), (2_000, ORDERS), (2_001, ORDERS)]


def test_export_broken_off_leaves_no_file(shop: Path) -> None:
    """What a report raises (a cancel) ends the export, and half a file is never seen."""

    def stop(rows: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(request_for(shop), stop)

    assert list((shop.parent / "out").iterdir()) == []


@pytest.mark.parametrize(
    "table",
    ["gone", "odd; DROP TABLE odd", 'odd" UNION SELECT * FROM odd --', "odd UNION SELECT 1", "", "'odd'", "pragma_table_info"],
)
def test_export_refuses_a_table_that_is_not_in_the_schema(shop: Path, table: str) -> None:
    """A name that is no table's reaches no statement; the tables there are get named, and nothing is changed."""
    before = shop.read_bytes()

    with pytest.raises(ExportRefusedError, match=r"^no table .*; there are: cheap, odd, order \"lines\"$"):
        export(request_for(shop, table=table), ignore)

    assert shop.read_bytes() == before
    assert not (shop.parent / "out").exists()


@pytest.mark.parametrize("column", ["gone", "id, name", "(SELECT 1)", 'id" FROM odd --', ""])
def test_export_refuses_a_column_that_is_not_in_the_table(shop: Path, column: str) -> None:
    """A name that is no column's reaches no statement (SQLite would take it for a text)."""
    with pytest.raises(ExportRefusedError, match=r"^no column .*; there are: id, name, price, select$"):
        export(request_for(shop, columns=["id", column]), ignore)


def test_export_refuses_a_missing_database_and_makes_none(tmp_path: Path) -> None:
    """A database that is not there is named, and not created by looking for it."""
    with pytest.raises(ExportRefusedError, match=r"^no such database: .*gone\.sqlite$"):
        export(request_for(tmp_path / "gone.sqlite"), ignore)

    assert list(tmp_path.glob("*.sqlite")) == []


def test_export_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Another kind of file is refused in one line."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be mistaken for one\n" * 100)

    with pytest.raises(ExportRefusedError, match=r"notes\.txt is not a SQLite database that can be read: "):
        export(request_for(path), ignore)


def test_export_can_be_retried_when_a_writer_holds_the_database(shop: Path) -> None:
    """A locked database is no refusal: the error is the one that a retry may cure."""
    with closing(sqlite3.connect(shop)) as writer:
        writer.execute("BEGIN EXCLUSIVE")

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            export(request_for(shop), ignore)
