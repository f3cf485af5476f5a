"""`examples.signup`: a web app that answers 201 at once, and a welcome mail that a real mail server receives."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.examples.stage import ADA, call, mails, office, play, smtp
from tests.programs import Program
from tests.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo.post_office import PostOffice

__all__ = ["office", "smtp"]


@pytest.fixture(scope="module")
def web_app() -> Iterator[str]:
    """The app, with no Gopher to speak to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    with Program("examples.signup", "127.0.0.1:0", environ={**os.environ, "GOPHER_SERVER": nobody}) as web:
        yield f"http://{web.wait_ready()['http']}"


async def test_signup_answers_at_once_and_the_welcome_is_delivered_once(
    tmp_path: Path, office: PostOffice, smtp: dict[str, str]
) -> None:
    """`POST /signup` twice answers 201 with one job, and one mail with the visitor's name goes out over SMTP."""
    form = {"name": "Ada", "email": ADA}

    async with play("examples.media:registry", tmp_path, **smtp) as stage:
        with Program("examples.signup", "127.0.0.1:0", environ=stage.environ) as web:
            url = f"http://{web.wait_ready()['http']}/signup"
            first, second = call("POST", url, form), call("POST", url, form)
            [job] = await stage.completed("email")
            assert web.stop() == 0, "".join(web.errors)

    assert first == second == (201, {"job_id": job.id})
    [mail] = mails(office)
    assert (mail["To"], mail["Subject"], mail["Message-ID"]) == (ADA, "Welcome!", f"<{job.id}@gopher.localhost>")
    assert mail.get_content().replace("\r\n", "\n") == "Dear Ada,\n\nthank you for signing up.\n"


async def test_signup_does_not_wait_for_a_mail_server_that_is_down(tmp_path: Path) -> None:
    """With no mail server the visitor has the 201 all the same, and the job is retried, not lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async with play("examples.media:registry", tmp_path, SMTP_HOST="127.0.0.1", SMTP_PORT=str(port)) as stage:
        with Program("examples.signup", "127.0.0.1:0", environ=stage.environ) as web:
            status, answer = call("POST", f"http://{web.wait_ready()['http']}/signup", {"name": "Ada", "email": ADA})

            async def has_failed_twice() -> bool:
                return len((await stage.client.get(str(answer["job_id"]))).attempts) >= 2

            await until_async(has_failed_twice)
            job = await stage.client.get(str(answer["job_id"]))

    assert status == 201
    assert not job.state.is_final
    assert job.attempts[0].failure is not None
    assert "cannot be reached" in job.attempts[0].failure.message


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"name": "Ada"}, "missing required field `email`"),
        ({"name": "", "email": ADA}, "$.name"),
        ({"name": "Ada", "email": "no address"}, "$.email"),
        ({"name": "Ada\r\nBcc: all@example.com", "email": ADA}, "$.name"),
    ],
)
def test_signup_refuses_a_form_that_does_not_fit(web_app: str, form: dict[str, str], problem: str) -> None:
    """A bad form is answered 400 with the field; nothing is asked of the server, which is not even there."""
    status, answer = call("POST", f"{web_app}/signup", form)

    assert status == 400
    assert problem in str(answer["error"])


def test_signup_says_try_again_without_a_server(web_app: str) -> None:
    """When Gopher cannot be reached the visitor is asked to try again, with a 503."""
    status, answer = call("POST", f"{web_app}/signup", {"name": "Ada", "email": ADA})

    assert status == 503
    assert str(answer["error"]).startswith("please try again: ")
