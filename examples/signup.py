"""Signing up: a web app that answers at once and leaves the welcome mail to a worker.

    gopher dev --app examples.media:registry            # has the handler of `email`; SMTP_HOST and SMTP_PORT name the mail server
    python -m examples.signup 127.0.0.1:8000            # GOPHER_SERVER names the server, 127.0.0.1:50051 if unset
    curl -i 127.0.0.1:8000/signup -d '{"name": "Ada", "email": "ada@example.com"}'

A mail server that is slow or down costs the visitor nothing: `POST /signup` submits a job and answers 201, and the job is tried
again until the mail is delivered. A form that is sent twice sends one mail, since the submit is repeatable by its request id. The
same by hand: `gopher submit email -p '{"to": "ada@example.com", "subject": "Welcome!"}' --request-id signup:ada@example.com`.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.mail import Address, Email
from examples.web import read_json, run_web_app

if TYPE_CHECKING:
    from starlette.requests import Request

    from gopher.client import TrioClient

SENDER: Final = "welcome@example.com"
TEMPLATES: Final = {"welcome": Template("Dear $username,\n\nthank you for signing up.\n")}

Name = Annotated[str, msgspec.Meta(pattern=r"\A[^\r\n]+\Z", max_length=100)]


@dataclass(frozen=True)
class Signup:
    """The body of `POST /signup`.

    Attributes:
        name: What the visitor is called, up to 100 characters.
        email: Where the welcome goes.
    """

    name: Name
    email: Address


def welcome(signup: Signup) -> Email:
    """Return the mail that greets a new user."""
    body = TEMPLATES["welcome"].substitute(username=signup.name)
    return Email(to=signup.email, subject="Welcome!", body=body, sender=SENDER)


def make_routes(client: TrioClient) -> list[Route]:
    """Return what the app serves."""

    async def sign_up(request: Request) -> JSONResponse:
        signup = await read_json(request, Signup)
        job_id = await client.submit("email", welcome(signup), priority="high", request_id=f"signup:{signup.email}")
        return JSONResponse({"job_id": job_id}, status_code=201)

    return [Route("/signup", sign_up, methods=["POST"])]


if __name__ == "__main__":
    run_web_app(make_routes)
