"""The shop's five job types. What they do to the books is in `ledger`; here is when, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

import gopher
from examples.mail import Email
from examples.mailing import send
from examples.shop.ledger import STEPS, Ledger, Order, OrderRefusedError, StaleTokenError, database_path

SENDER: Final = "shop@example.com"

registry = gopher.Registry()


@dataclass(frozen=True)
class OrderStep:
    """The payload of each job that an order gives rise to.

    Attributes:
        order_id: Which order.
    """

    order_id: str


@registry.handler("order", timeout_seconds=30)
async def place_order(job: gopher.JobContext, order: Order) -> gopher.JsonValue:
    """Take the order down and fan out: the three children are written in one with this job's completion."""
    try:
        await trio.to_thread.run_sync(lambda: Ledger(database_path()).place(order))
    except OrderRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    return {step: await job.submit(step, OrderStep(order.id), priority="high") for step in STEPS}


@registry.handler("payment_processing", max_attempts=5, timeout_seconds=30)
def process_payment(job: gopher.SyncJobContext, step: OrderStep) -> gopher.JsonValue:
    """Charge the customer, however often this runs, once; an attempt that was taken over changes nothing."""
    ledger = Ledger(database_path())
    try:
        cents, reference = ledger.charge(step.order_id, job.token)
    except (OrderRefusedError, StaleTokenError) as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    _follow_up(job, step, is_last=ledger.finish(step.order_id, job.type))
    return {"cents": cents, "reference": reference}


@registry.handler("inventory_update", timeout_seconds=30)
def update_inventory(job: gopher.SyncJobContext, step: OrderStep) -> gopher.JsonValue:
    """Take the goods out of the stock. With too few there the job becomes a dead letter: requeue it when there are more."""
    try:
        is_last = Ledger(database_path()).take_stock(step.order_id)
    except OrderRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    _follow_up(job, step, is_last=is_last)
    return {"order_id": step.order_id}


@registry.handler("order_confirmation_email", max_attempts=5, timeout_seconds=60, backoff_initial_seconds=0.5)
def confirm_order(job: gopher.SyncJobContext, step: OrderStep) -> gopher.JsonValue:
    """Mail the customer that the order was received."""
    ledger = Ledger(database_path())
    order = ledger.order(step.order_id)
    body = f"We have received your order of {order.quantity} x {order.product}.\n"
    sent = send(job, Email(order.customer, f"Order {order.id} received", body, SENDER), about=f"received-{order.id}")
    _follow_up(job, step, is_last=ledger.finish(step.order_id, job.type))
    return sent


@registry.handler("order_notification", max_attempts=5, timeout_seconds=60, backoff_initial_seconds=0.5)
def notify_customer(job: gopher.SyncJobContext, step: OrderStep) -> gopher.JsonValue:
    """Mail the customer that the order is paid and on its way."""
    order = Ledger(database_path()).order(step.order_id)
    body = f"Your {order.quantity} x {order.product} are paid and on their way.\n"
    return send(job, Email(order.customer, f"Order {order.id} is on its way", body, SENDER), about=f"shipped-{order.id}")


def _follow_up(job: gopher.SyncJobContext, step: OrderStep, *, is_last: bool) -> None:
    """Have the customer told once all steps are done.

    A step that is run again after the last one asks a second time; both mails then have one Message-ID.
    """
    if is_last:
        job.submit("order_notification", step)
