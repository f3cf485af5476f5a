"""The bank's four job types. What they do is in `books`, `reports` and `risk`; here is what a failure means and what follows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import gopher
from examples.bank.books import Transaction, TransactionRefusedError, book, database_path, email_of
from examples.bank.reports import NotReconciledError, ReportRequest, file_report
from examples.bank.risk import NoRecordError, RiskRequest, assess
from examples.mail import Email
from examples.mailing import send

SENDER: Final = "bank@example.com"
NOTIFICATION: Final = "customer_notification"

registry = gopher.Registry()


@registry.handler("transaction", max_attempts=5, timeout_seconds=30)
def book_transaction(job: gopher.SyncJobContext, wanted: Transaction) -> gopher.JsonValue:
    """Check and book. A refusal is final, and the payer is told of nothing; a locked database is worth another attempt."""
    path = database_path()
    try:
        book(path, wanted, datetime.now(UTC))
        payer = email_of(path, wanted.debit)
    except TransactionRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    body = f"{_euros(wanted.cents)} went from your account to {wanted.credit}.\n"
    job.submit(NOTIFICATION, Email(payer, f"Transaction {wanted.id}", body, SENDER), priority="high")
    return {"transaction_id": wanted.id}


@registry.handler("regulatory_report", max_attempts=3, timeout_seconds=300)
def report_day(job: gopher.SyncJobContext, request: ReportRequest) -> gopher.JsonValue:
    """File a day's report. Books that do not reconcile make the job a dead letter: no attempt would mend them."""
    try:
        report = file_report(database_path(), request)
    except NotReconciledError as error:
        raise gopher.Discard(str(error)) from error
    body = f"{report.transactions} transactions, {_euros(report.debit_cents)}.\nSHA-256 of {report.csv}: {report.sha256}\n"
    job.submit(NOTIFICATION, Email(request.notify, f"Report of {report.day}", body, SENDER))
    return asdict(report)


@registry.handler("risk_assessment", max_attempts=3, timeout_seconds=600, process=True)
def assess_risk(job: gopher.SyncJobContext, request: RiskRequest) -> gopher.JsonValue:
    """Simulate, in a process of its own: the worker's loop goes on, and a cancel ends the arithmetic at once."""
    try:
        risk = assess(database_path(), request, job.progress)
    except NoRecordError as error:
        raise gopher.Discard(str(error)) from error
    change = _euros(-risk.value_at_risk_cents)
    body = f"In the worst month of a hundred the balance changes by {change} or less, drawn from {risk.days} days.\n"
    job.submit(NOTIFICATION, Email(request.notify, f"Risk of {request.account}", body, SENDER))
    return asdict(risk)


@registry.handler(NOTIFICATION, max_attempts=5, timeout_seconds=60, backoff_initial_seconds=0.5, backoff_max_seconds=600)
def notify(job: gopher.SyncJobContext, email: Email) -> gopher.JsonValue:
    """Mail whoever is to know."""
    return send(job, email, about=job.id)


def _euros(cents: int) -> str:
    return f"EUR {cents / 100:,.2f}"
