"""The shop's SQLite database: products, orders, charges, and which steps of an order are done. Plain Python without Gopher.

Each method is one transaction that may be repeated: the second time it finds what the first has done, and changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from examples.mail import Address  # noqa: TC001 - read at run time, from the annotations below

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_WAIT_SECONDS: Final = 5.0
PRODUCTS: Final = (("desk lamp", 4_900, 10), ("fountain pen", 2_950, 100), ("notebook", 450, 1_000))
"""Name, price in cents, and how many there are in a new shop."""
STEPS: Final = ("payment_processing", "inventory_update", "order_confirmation_email")
"""What must be done for an order, by the type of the job that does it."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS products (name TEXT PRIMARY KEY, price_cents INTEGER NOT NULL, stock INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL, product TEXT NOT NULL REFERENCES products (name), quantity INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS charges (
    idempotency_key TEXT PRIMARY KEY, token INTEGER NOT NULL, cents INTEGER NOT NULL, reference TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (order_id TEXT NOT NULL, step TEXT NOT NULL, PRIMARY KEY (order_id, step));
"""


@dataclass(frozen=True)
class Order:
    """The payload of an `order` job.

    Attributes:
        id: Chosen by whoever takes the order; the same id is the same order.
        customer: The address of who is told about it.
        product: Its name.
        quantity: How many, 1 to 1000.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,64}\Z")]
    customer: Address
    product: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)]


class OrderRefusedError(Exception):
    """The order cannot be carried out as it is; another attempt would find the same."""


class StaleTokenError(Exception):
    """A later attempt has been here: the one that asks has lost its lease."""


def database_path() -> Path:
    """Return where the shop's database lies: `SHOP_DATABASE`, else `shop.sqlite` in the working directory."""
    return Path(os.environ.get("SHOP_DATABASE", "shop.sqlite"))


class Ledger:
    """The shop's books.

    Args:
        path: The SQLite file; a missing one is made, with `PRODUCTS` in stock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as database:
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            database.executemany("INSERT OR IGNORE INTO products VALUES (?, ?, ?)", PRODUCTS)

    def place(self, order: Order) -> None:
        """Take an order down.

        Raises:
            OrderRefusedError: There is no such product, or another order has the id.
        """
        row = (order.id, order.customer, order.product, order.quantity)
        with self._transaction() as database:
            if database.execute("SELECT 1 FROM products WHERE name = ?", (order.product,)).fetchone() is None:
                raise OrderRefusedError(f"there is no product {order.product!r}")
            database.execute("INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?)", row)
            if database.execute("SELECT * FROM orders WHERE id = ?", (order.id,)).fetchone() != row:
                raise OrderRefusedError(f"another order has the id {order.id}")

    def order(self, order_id: str) -> Order:
        """Return an order.

        Raises:
            OrderRefusedError: There is none.
        """
        with self._transaction() as database:
            return _find(database, order_id)

    def charge(self, order_id: str, token: int) -> tuple[int, str]:
        """Charge the customer for an order, once; return the cents and the reference of the charge.

        Args:
            order_id: The idempotency key is made from it.
            token: The lease token of the attempt.

        Raises:
            OrderRefusedError: There is no such order.
            StaleTokenError: A later attempt has charged.
        """
        key = f"order:{order_id}"
        with self._transaction() as database:
            order = _find(database, order_id)
            (price,) = database.execute("SELECT price_cents FROM products WHERE name = ?", (order.product,)).fetchone()
            charge = (key, token, price * order.quantity, uuid.uuid4().hex)
            database.execute("INSERT OR IGNORE INTO charges VALUES (?, ?, ?, ?)", charge)
            changed = database.execute("UPDATE charges SET token = ?2 WHERE idempotency_key = ?1 AND token <= ?2", (key, token))
            if changed.rowcount == 0:
                raise StaleTokenError(f"a later attempt than {token} has charged {key}")
            found = database.execute("SELECT cents, reference FROM charges WHERE idempotency_key = ?", (key,)).fetchone()
            cents, reference = found
            return int(cents), str(reference)

    def take_stock(self, order_id: str) -> bool:
        """Take an order's goods out of the stock, once, and finish the step; return whether all steps are done.

        Raises:
            OrderRefusedError: There is no such order, or too little in stock.
        """
        with self._transaction() as database:
            order = _find(database, order_id)
            if _note(database, order_id, "inventory_update"):
                taken = database.execute(
                    "UPDATE products SET stock = stock - ?1 WHERE name = ?2 AND stock >= ?1", (order.quantity, order.product)
                )
                if taken.rowcount == 0:
                    raise OrderRefusedError(f"there are fewer than {order.quantity} of {order.product!r} in stock")
            return _done(database, order_id) == sorted(STEPS)

    def finish(self, order_id: str, step: str) -> bool:
        """Note that a step is done; return whether all are."""
        with self._transaction() as database:
            _note(database, order_id, step)
            return _done(database, order_id) == sorted(STEPS)

    def done(self, order_id: str) -> list[str]:
        """Return the steps of an order that are done, by name."""
        with self._transaction() as database:
            return _done(database, order_id)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=LOCK_WAIT_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # the write lock at once: what was read is still so when it is written
            with database:  # commits, or rolls back on an error
                yield database


def _find(database: sqlite3.Connection, order_id: str) -> Order:
    row = database.execute("SELECT id, customer, product, quantity FROM orders WHERE id = ?", (order_id,)).fetchone()
    if row is None:
        raise OrderRefusedError(f"there is no order {order_id}")
    return Order(*row)


def _note(database: sqlite3.Connection, order_id: str, step: str) -> bool:
    """Return whether the step was not done before."""
    return database.execute("INSERT OR IGNORE INTO steps VALUES (?, ?)", (order_id, step)).rowcount == 1


def _done(database: sqlite3.Connection, order_id: str) -> list[str]:
    return [step for (step,) in database.execute("SELECT step FROM steps WHERE order_id = ? ORDER BY step", (order_id,))]
