"""`examples.bank`: booked once, reported to the cent, simulated in a process of its own, and told to whom it concerns."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from examples.bank.books import OPENING_CENTS, OWNERS, Transaction, TransactionRefusedError, balance, book, create, transaction
from examples.bank.reports import NotReconciledError, ReportRequest, file_report
from examples.bank.risk import NoRecordError, RiskRequest, assess
from tests.examples.stage import ADA, mails, office, play, smtp
from tests.programs import run

if TYPE_CHECKING:
    from pathlib import Path

    from examples.demo.post_office import PostOffice

__all__ = ["office", "smtp"]

DAY = "2026-01-02"
UNOPPOSED = """
INSERT INTO entries VALUES ('x', 'ada', 5, '2026-01-02T00:00:00+00:00');
UPDATE accounts SET balance_cents = balance_cents + 5 WHERE id = 'ada'
"""
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    path = tmp_path / "bank.sqlite"
    create(path, 500)
    return path


def cents(bank: Path, account: str) -> int:
    with transaction(bank) as database:
        return balance(database, account) or 0


def ignore(share: float, what: str) -> None:
    pass


async def test_each_of_the_banks_jobs_ends_in_a_mail(
    tmp_path: Path, bank: Path, office: PostOffice, smtp: dict[str, str]
) -> None:
    """A booked transaction, a filed report and a risk assessment are each followed by a mail to whom it concerns."""
    before = cents(bank, "ada")

    async with play("examples.bank:registry", tmp_path, **smtp, BANK_DATABASE=str(bank)) as stage:
        booked = stage.submit("transaction", {"id": "t-1", "debit": "ada", "credit": "grace", "cents": 1_250})
        report = stage.submit("regulatory_report", {"day": DAY, "folder": str(tmp_path / "reports"), "notify": ADA})
        risk = stage.submit("risk_assessment", {"account": "ada", "scenarios": 2_000, "seed": 7, "notify": ADA})
        refused = stage.submit("transaction", {"id": "t-2", "debit": "ada", "credit": "grace", "cents": 99_000_000})
        await stage.completed("customer_notification", 3)

    assert [booked["state"], report["state"], risk["state"], refused["state"]] == ["completed"] * 3 + ["failed"]
    assert cents(bank, "ada") == before - 1_250
    assert "fewer than 99000000" in json.dumps(refused)
    written = json.loads((tmp_path / "reports" / f"{DAY}.json").read_bytes())
    assert report["result"] == written
    subjects = {mail["Subject"] for mail in mails(office)}
    assert subjects == {"Transaction t-1", f"Report of {DAY}", "Risk of ada"}
    assert written["sha256"] in "".join(mail.get_content() for mail in mails(office))


def test_command_makes_a_bank_once(tmp_path: Path) -> None:
    """`python -m examples.bank` makes the database that BANK_DATABASE names, and never one in the place of another."""
    environ = {**os.environ, "BANK_DATABASE": str(tmp_path / "new.sqlite")}

    first, second = run("examples.bank", environ=environ), run("examples.bank", environ=environ)

    assert (first.returncode, first.stdout, first.stderr) == (0, f"made {tmp_path / 'new.sqlite'}\n", "")
    assert (second.returncode, second.stderr) == (1, f"{tmp_path / 'new.sqlite'} is there already\n")
    assert cents(tmp_path / "new.sqlite", "ada") > 0


def test_book_moves_the_money_once(bank: Path) -> None:
    """The same transaction again changes nothing, and what one account loses the other gains."""
    before = cents(bank, "ada"), cents(bank, "alan")

    for _ in range(2):
        book(bank, Transaction("t-1", "ada", "alan", 500), NOON)

    assert (cents(bank, "ada"), cents(bank, "alan")) == (before[0] - 500, before[1] + 500)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Transaction("t-1", "ada", "ada", 1), "ada cannot pay itself"),
        (Transaction("t-1", "ada", "nobody", 1), "there is no account nobody"),
        (Transaction("t-1", "nobody", "ada", 1), "there is no account nobody"),
        (Transaction("t-1", "ada", "alan", 50_000_000), "fewer than 50000000"),
        (Transaction("seed-0", "ada", "alan", 1), "another transaction has the id seed-0"),
    ],
)
def test_book_refuses_what_is_not_valid(bank: Path, wanted: Transaction, reason: str) -> None:
    """Nothing is booked, and the reason is named."""
    before = [cents(bank, owner) for owner in OWNERS]

    with pytest.raises(TransactionRefusedError, match=reason):
        book(bank, wanted, NOON)

    assert [cents(bank, owner) for owner in OWNERS] == before


def test_report_agrees_with_its_csv_and_the_accounts(bank: Path, tmp_path: Path) -> None:
    """Totals, count and hash are the file's; the day after, when nothing moves, closes with today's balances."""
    report = file_report(bank, ReportRequest(DAY, str(tmp_path), ADA))
    last = file_report(bank, ReportRequest("2026-12-31", str(tmp_path), ADA))

    content = (tmp_path / f"{DAY}.csv").read_bytes()
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert {row["booked_at"][:10] for row in rows} == {DAY}
    assert report.transactions * 2 == len(rows) > 40
    assert report.debit_cents == report.credit_cents == sum(int(row["cents"]) for row in rows if int(row["cents"]) > 0)
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert last.transactions == 0
    assert last.closing_cents == {owner: cents(bank, owner) for owner in sorted(OWNERS)}
    assert sum(report.closing_cents.values()) == OPENING_CENTS * len(OWNERS)


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        ("UPDATE accounts SET balance_cents = balance_cents + 1 WHERE id = 'ada'", "ada has .* its entries make"),
        ("UPDATE entries SET cents = cents + 1 WHERE transaction_id = 'seed-250'", "its entries make"),
        ("DELETE FROM entries WHERE transaction_id = 'seed-250' AND cents > 0", "its entries make"),
        (
            UNOPPOSED,
            "the accounts hold 5000005 cents together",
        ),
    ],
)
def test_books_that_do_not_reconcile_are_not_filed(bank: Path, tmp_path: Path, tampering: str, finding: str) -> None:
    """One cent too many or too few anywhere, and there is no report but a finding."""
    with transaction(bank) as database:
        for statement in tampering.split(";"):
            database.execute(statement)

    with pytest.raises(NotReconciledError, match=finding):
        file_report(bank, ReportRequest(DAY, str(tmp_path / "reports"), ADA))

    assert not (tmp_path / "reports").exists()


def test_assess_says_the_same_for_the_same_seed(bank: Path) -> None:
    """The figures are repeatable, the mean of the worst months is worse than the best of them, and progress reaches 1."""
    reports: list[float] = []
    request = RiskRequest("ada", scenarios=2_500, seed=7, notify=ADA)

    risk = assess(bank, request, lambda share, _: reports.append(share))

    assert assess(bank, request, ignore) == risk
    assert risk.expected_shortfall_cents > risk.value_at_risk_cents
    assert reports == [0.4, 0.8, 1.0]


def test_assess_of_an_account_without_entries_is_refused(bank: Path) -> None:
    """There is nothing to draw from."""
    with pytest.raises(NoRecordError, match="nobody has no entries"):
        assess(bank, RiskRequest("nobody", scenarios=100, seed=7, notify=ADA), ignore)
