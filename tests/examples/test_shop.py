"""`examples.shop`: an order fans out over jobs, and each of its effects happens once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

import gopher.testing
from examples.shop import registry
from examples.shop.ledger import STEPS, Ledger, Order, OrderRefusedError, StaleTokenError
from gopher.job import JobState
from tests.examples.stage import ADA, call, mails, office, play, smtp
from tests.programs import Program
from tests.waiting import until_async

if TYPE_CHECKING:
    from pathlib import Path

    from examples.demo.post_office import PostOffice

__all__ = ["office", "smtp"]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "shop.sqlite")
    ledger.place(Order("o-1", ADA, "desk lamp", 2))
    return ledger


async def test_order_fans_out_and_the_customer_hears_of_it(tmp_path: Path, office: PostOffice, smtp: dict[str, str]) -> None:
    """`POST /orders` answers 202; the order is paid, taken from stock and confirmed, and then the customer is notified."""
    settings = {**smtp, "SHOP_DATABASE": str(tmp_path / "shop.sqlite")}
    wish = {"customer": ADA, "product": "desk lamp", "quantity": 2}

    async with play("examples.shop:registry", tmp_path, **settings) as stage:
        with Program("examples.shop.web", "127.0.0.1:0", environ=stage.environ) as web:
            url = f"http://{web.wait_ready()['http']}/orders"
            status, answer = call("POST", url, wish)
            children = await stage.client.result(str(answer["job_id"]), wait=60)
            await stage.completed("order_notification")
            [payment] = await stage.completed("payment_processing")
            shown = call("GET", f"{url}/{answer['order_id']}")

    assert (status, answer["status"]) == (202, "order_received")
    assert isinstance(children, dict)
    assert children["payment_processing"] == payment.id
    assert sorted(children) == sorted(STEPS)
    assert msgspec.json.decode(payment.result or b"")["cents"] == 9_800
    assert shown == (200, {"order_id": answer["order_id"], "done": sorted(STEPS), "is_complete": True})
    assert {mail["Message-ID"] for mail in mails(office)} == {
        f"<received-{answer['order_id']}@gopher.localhost>",
        f"<shipped-{answer['order_id']}@gopher.localhost>",
    }
    assert "paid and on their way" in mails(office)[-1].get_content()


async def test_order_that_cannot_be_had_stays_with_the_operator(
    tmp_path: Path, office: PostOffice, smtp: dict[str, str]
) -> None:
    """Too little stock makes that one step a dead letter that says why; nobody is told that the order is on its way."""
    settings = {**smtp, "SHOP_DATABASE": str(tmp_path / "shop.sqlite")}
    payload = {"id": "o-2", "customer": ADA, "product": "desk lamp", "quantity": 11}

    async with play("examples.shop:registry", tmp_path, **settings) as stage:
        order = stage.submit("order", payload)
        await stage.completed("order_confirmation_email")
        await stage.completed("payment_processing")

        async def is_dead() -> bool:
            return len(await stage.client.list_failed()) == 1

        await until_async(is_dead)
        [dead] = await stage.client.list_failed()
        notices = await stage.client.list(type="order_notification")

    assert order["state"] == JobState.COMPLETED
    assert dead.type == "inventory_update"
    assert dead.failure is not None
    assert "fewer than 11 of 'desk lamp' in stock" in dead.failure.message
    assert list(notices) == []


async def test_payment_that_breaks_off_after_the_charge_charges_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt finds the charge of the first, takes it over by its token, and completes the job."""
    monkeypatch.setenv("SHOP_DATABASE", str(ledger.path))
    finish, failures = Ledger.finish, [OSError("cut off")]

    def finish_at_last(self: Ledger, order_id: str, step: str) -> bool:
        if failures:
            raise failures.pop()
        return finish(self, order_id, step)

    monkeypatch.setattr(Ledger, "finish", finish_at_last)

    async with gopher.testing.open_runtime(registry) as runtime:
        job_id = await runtime.submit("payment_processing", {"order_id": "o-1"})
        job = (await runtime.drain())[job_id]

    with closing(sqlite3.connect(ledger.path)) as database:
        charges = database.execute("SELECT idempotency_key, token, cents FROM charges").fetchall()
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert charges == [("order:o-1", job.token, 9_800)]


def test_charge_moves_money_once_a_key(ledger: Ledger) -> None:
    """The second attempt gets the reference of the first."""
    first = ledger.charge("o-1", token=7)

    assert first[0] == 9_800
    assert ledger.charge("o-1", token=8) == first


def test_charge_refuses_an_attempt_that_was_taken_over(ledger: Ledger) -> None:
    """The token of an attempt that has lost its lease is below that of its successor, and is refused."""
    ledger.charge("o-1", token=8)

    with pytest.raises(StaleTokenError, match="a later attempt than 7 has charged order:o-1"):
        ledger.charge("o-1", token=7)


def test_take_stock_takes_once_an_order(ledger: Ledger) -> None:
    """Run again it changes nothing: five orders of two use up ten lamps, and the sixth is refused with its step undone."""
    for number in range(1, 7):
        ledger.place(Order(f"o-{number}", ADA, "desk lamp", 2))
    for number in (1, 1, 2, 2, 3, 4, 5, 5):
        ledger.take_stock(f"o-{number}")

    with pytest.raises(OrderRefusedError, match="fewer than 2 of 'desk lamp' in stock"):
        ledger.take_stock("o-6")

    assert ledger.done("o-5") == ["inventory_update"]
    assert ledger.done("o-6") == []


def test_the_last_step_knows_that_it_is_the_last(ledger: Ledger) -> None:
    """Only when the other two are done does a step find the order complete, also when it is run again."""
    answers = [
        ledger.finish("o-1", "payment_processing"),
        ledger.finish("o-1", "order_confirmation_email"),
        ledger.take_stock("o-1"),
        ledger.finish("o-1", "payment_processing"),
    ]

    assert answers == [False, False, True, True]


def test_place_takes_an_order_once(ledger: Ledger) -> None:
    """The same order again is no error; another under its id and one of an unknown product are refused."""
    ledger.place(Order("o-1", ADA, "desk lamp", 2))

    with pytest.raises(OrderRefusedError, match="another order has the id o-1"):
        ledger.place(Order("o-1", ADA, "notebook", 1))
    with pytest.raises(OrderRefusedError, match="there is no product 'gold bar'"):
        ledger.place(Order("o-9", ADA, "gold bar", 1))
