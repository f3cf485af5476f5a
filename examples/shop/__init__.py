"""A shop: an order fans out into payment, stock and confirmation, and the customer hears when all three are done.

    export SHOP_DATABASE=shop.sqlite                    # for both: the worker and the web app keep the shop in one SQLite file
    gopher dev --app examples.shop:registry             # SMTP_HOST and SMTP_PORT name the mail server
    python -m examples.shop.web 127.0.0.1:8000          # GOPHER_SERVER names the server, 127.0.0.1:50051 if unset
    curl -i 127.0.0.1:8000/orders -d '{"customer": "ada@example.com", "product": "desk lamp", "quantity": 2}'
    curl 127.0.0.1:8000/orders/ORDER_ID                 # which steps are done
    gopher submit order -p '{"id": "o-1", "customer": "ada@example.com", "product": "desk lamp", "quantity": 2}' --watch

`POST /orders` answers 202 with the order's id as soon as the `order` job is kept. That job's children `payment_processing`,
`inventory_update` and `order_confirmation_email` come to be together with its completion, all of them or none. Whichever of the
three is the last to be done submits `order_notification`.

Any job may run twice. The shop's ledger (`ledger`) makes that harmless: money moves once an idempotency key, and an attempt whose
lease was lost is refused by the token of its successor; stock is taken once an order. Read on in `handlers`, then `ledger`, `web`.
"""

from __future__ import annotations

from examples.shop.handlers import registry

__all__ = ["registry"]
