"""Mail to accounts, from "Forgot your password?" to a mail server."""

import logging
import re
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import registration
from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode
from portal.mail_servers.selection import of_owner
from tests.conftest import SignIn
from tests.pages import PASSWORD, csrf_token, post
from tests.ready import entered
from tests.smtp_peer import Act, SmtpPeer, refusing_port

EMAIL = "admin@acme.example"


@pytest.fixture
def account(app: Flask) -> str:
    with app.app_context():
        registration.add(EMAIL, PASSWORD)
    return EMAIL


def through(app: Flask, port: int, **changes: object) -> None:
    with app.app_context():
        settings.save(None, entered(port, **{"sender_email": "noreply@pbx.example", **changes}))


def soon(is_so: Callable[[], object]) -> None:
    """Wait until what happens behind the visitor's back has happened."""
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def received(peer: SmtpPeer) -> EmailMessage:
    soon(lambda: peer.mails)
    return message_from_bytes(peer.mails[0].content, policy=policy.default)


def link_in(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    found = re.search(r"http://portal\.test(/forgotten-password/[\w.-]+)", body.get_content())
    assert found, body.get_content()
    return found[1]


def forget(client: FlaskClient, email: str = EMAIL, **headers: str) -> tuple[int, str]:
    token = csrf_token(client.get("/forgotten-password").get_data(as_text=True))
    answer = client.post(
        "/forgotten-password",
        data={"email": email, "csrf_token": token},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        follow_redirects=True,
    )
    page = re.sub(r'value="[^"]*"|"X-CSRFToken": "[^"]*"', "", answer.get_data(as_text=True))
    return answer.status_code, page.replace(email, "what was typed")


def test_the_link_in_the_mail_sets_a_new_password(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer() as peer:
        through(app, peer.port)
        forget(client)
        mail = received(peer)
    assert mail["To"] == account
    assert mail["From"] == "PBX Notification Portal <noreply@pbx.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    link = link_in(mail, "plain")
    assert link_in(mail, "html") == link
    new = "a brand new password"
    answer = post(client, link, password=new, password_confirm=new)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    assert post(app.test_client(), "/sign-in", email=EMAIL, password=new).status_code == 302


def test_the_link_leads_to_the_portal_whatever_host_the_request_names(
    app: Flask, client: FlaskClient, account: str
) -> None:
    with SmtpPeer() as peer:
        through(app, peer.port)
        client.post("/forgotten-password", data={"email": EMAIL}, headers={"Host": "evil.example"})
        token = csrf_token(client.get("/forgotten-password", headers={"Host": "evil.example"}).get_data(as_text=True))
        client.post("/forgotten-password", data={"email": EMAIL, "csrf_token": token}, headers={"Host": "evil.example"})
        mail = received(peer).as_string()
    assert "evil.example" not in mail
    assert "portal.test" in mail


def test_a_changed_password_is_told(app: Flask, sign_in: SignIn, acme: str) -> None:
    browser = sign_in(EMAIL, administers=acme)
    new = "an even longer password"
    with SmtpPeer() as peer:
        through(app, peer.port)
        post(browser, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
        mail = received(peer)
    assert mail["To"] == EMAIL
    assert "has just been changed" in mail.as_string()
    assert new not in mail.as_string()


def test_the_answer_is_the_same_for_a_stranger_and_when_no_mail_goes_out(
    app: Flask, client: FlaskClient, account: str
) -> None:
    without_server = forget(client)
    with refusing_port() as port:
        through(app, port)
        dead_server = forget(client)
        stranger = forget(client, "stranger@acme.example")
    assert without_server == dead_server == stranger
    assert without_server[0] == 200


def test_a_silent_mail_server_does_not_keep_the_visitor(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer({"greeting": Act.SILENCE}) as peer:
        through(app, peer.port)
        before = time.monotonic()
        assert forget(client)[0] == 200
        assert time.monotonic() - before < 3
        soon(lambda: peer.conversations)


def test_failure_is_logged_without_addresses_and_secrets(
    app: Flask, client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with SmtpPeer({"rcpt": f"550 5.1.1 <{EMAIL}> unknown"}) as peer:
        through(app, peer.port)
        forget(client)
        soon(lambda: "was not sent" in caplog.text)
    assert "rcpt 550" in caplog.text
    assert EMAIL not in caplog.text
    assert "/forgotten-password/" not in caplog.text


def test_without_a_mail_server_the_log_says_so(
    client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    forget(client)
    soon(lambda: "the system has no mail server" in caplog.text)


def test_a_refused_password_is_not_tried_again_until_it_is_saved(
    app: Flask, client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        through(app, peer.port, auth_mode=AuthMode.PLAIN, username="mailer", password="wrong")
        forget(client)
        soon(lambda: "was not sent: auth 535" in caplog.text)
        with app.app_context():
            server = of_owner(None)
            assert server is not None
            assert server.rejected_at is not None
        forget(client)
        soon(lambda: "save them again" in caplog.text)
        assert len(peer.conversations) == 1
