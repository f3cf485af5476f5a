"""The bank's SQLite database: accounts, and transactions as entries of double-entry bookkeeping. Plain Python without Gopher."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_WAIT_SECONDS: Final = 5.0
OWNERS: Final = ("ada", "grace", "alan", "edsger", "barbara")
OPENING_CENTS: Final = 1_000_000
FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES_BETWEEN: Final = 61

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY, email TEXT NOT NULL, opening_cents INTEGER NOT NULL, balance_cents INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (
    transaction_id TEXT NOT NULL, account TEXT NOT NULL REFERENCES accounts (id), cents INTEGER NOT NULL, booked_at TEXT NOT NULL,
    PRIMARY KEY (transaction_id, account)
);
"""

Name = Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,64}\Z")]


@dataclass(frozen=True)
class Transaction:
    """The payload of a `transaction` job.

    Attributes:
        id: Chosen by the sender; the same id is the same transaction.
        debit: The account that pays.
        credit: The account that is paid.
        cents: How much, 1 to 100 million.
    """

    id: Name
    debit: Name
    credit: Name
    cents: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]


class TransactionRefusedError(Exception):
    """The transaction is not valid; the message says why."""


def database_path() -> Path:
    """Return where the bank's database lies: `BANK_DATABASE`, else `bank.sqlite` in the working directory."""
    return Path(os.environ.get("BANK_DATABASE", "bank.sqlite"))


def create(path: Path, transactions: int) -> None:
    """Make a new bank of five accounts, and book this many transactions, about an hour apart, from a fixed seed."""
    rng = random.Random(1494)
    with transaction(path) as database:
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        accounts = [(name, f"{name}@example.com", OPENING_CENTS, OPENING_CENTS) for name in OWNERS]
        database.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?)", accounts)
        for number in range(transactions):
            debit, credit = rng.sample(OWNERS, 2)
            moment = FIRST_DAY + timedelta(minutes=MINUTES_BETWEEN * number)
            _book(database, Transaction(f"seed-{number}", debit, credit, rng.randint(100, 9_999)), moment)


def book(path: Path, wanted: Transaction, moment: datetime) -> None:
    """Check a transaction and book it, once.

    Args:
        path: The database.
        wanted: What to book.
        moment: When, with a time zone.

    Raises:
        TransactionRefusedError: It is not valid; nothing was booked.
    """
    if wanted.debit == wanted.credit:
        raise TransactionRefusedError(f"{wanted.debit} cannot pay itself")
    with transaction(path) as database:
        found = dict(database.execute("SELECT account, cents FROM entries WHERE transaction_id = ?", (wanted.id,)).fetchall())
        if found == {wanted.debit: -wanted.cents, wanted.credit: wanted.cents}:
            return
        if found:
            raise TransactionRefusedError(f"another transaction has the id {wanted.id}")
        for account in (wanted.debit, wanted.credit):
            if balance(database, account) is None:
                raise TransactionRefusedError(f"there is no account {account}")
        available = balance(database, wanted.debit) or 0
        if available < wanted.cents:
            raise TransactionRefusedError(f"{wanted.debit} has {available} cents, fewer than {wanted.cents}")
        _book(database, wanted, moment)


def email_of(path: Path, account: str) -> str:
    """Return the address of an account's owner.

    Raises:
        TransactionRefusedError: There is no such account.
    """
    with transaction(path) as database:
        row = database.execute("SELECT email FROM accounts WHERE id = ?", (account,)).fetchone()
    if row is None:
        raise TransactionRefusedError(f"there is no account {account}")
    return str(row[0])


def balance(database: sqlite3.Connection, account: str) -> int | None:
    """Return an account's cents; None if there is no such account."""
    row = database.execute("SELECT balance_cents FROM accounts WHERE id = ?", (account,)).fetchone()
    return None if row is None else int(row[0])


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for one transaction, which is committed when the block ends well."""
    with closing(sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")  # the write lock at once: what was checked still holds when it is booked
        with database:  # commits, or rolls back on an error
            yield database


def _book(database: sqlite3.Connection, wanted: Transaction, moment: datetime) -> None:
    at = moment.astimezone(UTC).isoformat(timespec="seconds")
    for account, cents in ((wanted.debit, -wanted.cents), (wanted.credit, wanted.cents)):
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (wanted.id, account, cents, at))
        database.execute("UPDATE accounts SET balance_cents = balance_cents + ? WHERE id = ?", (cents, account))
