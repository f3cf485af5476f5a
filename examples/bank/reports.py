"""A day's regulatory report: the entries as CSV, and a JSON summary whose totals are reconciled with the accounts.

Totals are added up from the lines that were written, balances are read from the accounts: two ways to one number, and if they
disagree nothing is filed. Entries, totals and balances are read in one snapshot.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from examples.bank.books import transaction
from examples.files import replacing
from examples.mail import Address  # noqa: TC001 - read at run time, from the annotations below

if TYPE_CHECKING:
    import sqlite3

HEADER: Final = ("transaction_id", "account", "cents", "booked_at")
OF_DAY: Final = (
    "SELECT transaction_id, account, cents, booked_at FROM entries WHERE substr(booked_at, 1, 10) = ? "
    "ORDER BY booked_at, transaction_id, account"
)
MOVED: Final = "SELECT account, sum(cents) FROM entries WHERE substr(booked_at, 1, 10) <= ? GROUP BY account"


@dataclass(frozen=True)
class ReportRequest:
    """The payload of a `regulatory_report` job.

    Attributes:
        day: The day in UTC, as YYYY-MM-DD.
        folder: Where the two files go, made if need be.
        notify: Who is told when they are there.
    """

    day: Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\d\Z")]
    folder: str
    notify: Address


@dataclass(frozen=True)
class Report:
    """What was filed; also the content of the JSON summary.

    Attributes:
        day: Which.
        csv: Name of the CSV file.
        sha256: Of the CSV file, in hexadecimal digits.
        transactions: How many.
        debit_cents: The sum of what was paid.
        credit_cents: The sum of what was received, the same number.
        closing_cents: The balance of each account at the end of the day.
    """

    day: str
    csv: str
    sha256: str
    transactions: int
    debit_cents: int
    credit_cents: int
    closing_cents: dict[str, int]


class NotReconciledError(Exception):
    """The entries and the balances do not agree: a person must look into the books."""


def file_report(path: Path, request: ReportRequest) -> Report:
    """Write both files and return the summary.

    Raises:
        NotReconciledError: The totals do not agree; nothing was written.
        OSError: A file cannot be written.
    """
    with transaction(path) as database:
        rows = database.execute(OF_DAY, (request.day,)).fetchall()
        closing = _closing_balances(database, request.day)
    content = _as_csv(rows)
    debit, credit = _totals(content)
    if debit != credit:
        raise NotReconciledError(f"{request.day}: {debit} cents were paid and {credit} received")
    report = Report(
        day=request.day,
        csv=f"{request.day}.csv",
        sha256=hashlib.sha256(content).hexdigest(),
        transactions=len({row[0] for row in rows}),
        debit_cents=debit,
        credit_cents=credit,
        closing_cents=closing,
    )
    folder = Path(request.folder)
    with replacing(folder / report.csv) as file:
        file.write(content)
    with replacing(folder / f"{request.day}.json") as file:  # last: who finds the summary finds the CSV it tells of
        file.write(json.dumps(asdict(report), indent=2).encode())
    return report


def _closing_balances(database: sqlite3.Connection, day: str) -> dict[str, int]:
    """Return each account's balance at the end of the day.

    Raises:
        NotReconciledError: An account's balance is not what its entries make it, or the bank's money is not what it was.
    """
    moved = defaultdict(int, database.execute(MOVED, (day,)).fetchall())
    moved_until_now = defaultdict(int, database.execute(MOVED, ("9999-12-31",)).fetchall())
    closing: dict[str, int] = {}
    opening_total = 0
    for account, opening, balance in database.execute("SELECT id, opening_cents, balance_cents FROM accounts ORDER BY id"):
        if opening + moved_until_now[account] != balance:
            raise NotReconciledError(f"{account} has {balance} cents, its entries make {opening + moved_until_now[account]}")
        closing[account] = opening + moved[account]
        opening_total += opening
    if sum(closing.values()) != opening_total:
        raise NotReconciledError(f"{day}: the accounts hold {sum(closing.values())} cents together, not {opening_total}")
    return closing


def _as_csv(rows: list[tuple[str, str, int, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER)
    writer.writerows(rows)
    return text.getvalue().encode()


def _totals(content: bytes) -> tuple[int, int]:
    """Return what was paid and what was received, in cents, added up from the lines of the CSV."""
    amounts = [int(line["cents"]) for line in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    return -sum(cents for cents in amounts if cents < 0), sum(cents for cents in amounts if cents > 0)
