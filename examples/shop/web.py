"""The shop's web app: takes orders and shows how far they are (`python -m examples.shop.web`)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import trio
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.mail import Address  # noqa: TC001 - read at run time, from the annotations below
from examples.shop.ledger import STEPS, Ledger, Order, database_path
from examples.web import read_json, run_web_app

if TYPE_CHECKING:
    from starlette.requests import Request

    from gopher.client import TrioClient


@dataclass(frozen=True)
class Wish:
    """The body of `POST /orders`; see `Order`."""

    customer: Address
    product: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


def make_routes(client: TrioClient) -> list[Route]:
    """Return what the app serves."""

    async def take_order(request: Request) -> JSONResponse:
        wish = await read_json(request, Wish)
        order = Order(uuid.uuid4().hex, wish.customer, wish.product, wish.quantity)
        # By the request id the client may repeat the submit when an answer was lost, and there is still one job.
        job_id = await client.submit("order", order, request_id=order.id)
        return JSONResponse({"status": "order_received", "order_id": order.id, "job_id": job_id}, status_code=202)

    async def show_order(request: Request) -> JSONResponse:
        order_id = request.path_params["order_id"]
        done = await trio.to_thread.run_sync(lambda: Ledger(database_path()).done(order_id))
        return JSONResponse({"order_id": order_id, "done": done, "is_complete": done == sorted(STEPS)})

    return [Route("/orders", take_order, methods=["POST"]), Route("/orders/{order_id}", show_order)]


if __name__ == "__main__":
    run_web_app(make_routes)
