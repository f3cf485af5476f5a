"""A bank's work: transactions validated and booked, a regulatory report, a risk assessment, and customers who are told.

    export BANK_DATABASE=bank.sqlite
    python -m examples.bank                             # makes it, with five accounts and 500 transactions
    gopher dev --app examples.bank:registry             # SMTP_HOST and SMTP_PORT name the mail server
    gopher submit transaction -p '{"id": "t-1", "debit": "ada", "credit": "grace", "cents": 1250}' --watch
    gopher submit regulatory_report -p '{"day": "2026-01-02", "folder": "reports", "notify": "audit@example.com"}' --watch
    gopher submit risk_assessment -p '{"account": "ada", "scenarios": 20000, "seed": 7, "notify": "risk@example.com"}' --watch

- `transaction` is checked (known accounts, enough money) and booked, once an id, debit and credit in one SQLite transaction;
- `regulatory_report` writes one day's transactions as CSV and a JSON summary of totals, which must agree with the accounts'
  balances to the cent, or nothing is filed; the summary has the CSV's SHA-256;
- `risk_assessment` keeps a core busy with a Monte Carlo simulation, in a process of its own (`process=True`);
- each of them submits `customer_notification` together with its completion: who is not told was not booked, and the reverse.

Money is whole cents everywhere. Read on in `handlers`, then `books`, `reports`, `risk`, which know nothing of Gopher.
"""

from __future__ import annotations

from examples.bank.handlers import registry

__all__ = ["registry"]
