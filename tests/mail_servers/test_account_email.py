"""Emails to accounts, from "Forgot your password?" to a mail server."""

import logging
import re
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import service as account_service
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.service import get_server
from portal.mail_servers.smtp.client import AuthMode
from tests.conftest import SignIn
from tests.pages import PASSWORD, csrf_token, post
from tests.smtp_peer import Fault, SlowReply, SmtpPeer, closed_port
from tests.tenant_fixtures import entered

EMAIL = "admin@acme.example"


@pytest.fixture
def account(app: Flask) -> str:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    return EMAIL


def use_server(app: Flask, port: int, **changes: object) -> None:
    with app.app_context():
        mail_server_service.save(None, entered(port, **{"sender_email": "noreply@pbx.example", **changes}))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for the background thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def received(peer: SmtpPeer) -> EmailMessage:
    wait_for(lambda: peer.messages)
    return message_from_bytes(peer.messages[0].content, policy=policy.default)


def link_in(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    link = re.search(r"http://portal\.test(/forgotten-password/[\w.-]+)", body.get_content())
    assert link, body.get_content()
    return link[1]


def request_reset(client: FlaskClient, email: str = EMAIL, **headers: str) -> tuple[int, str]:
    token = csrf_token(client.get("/forgotten-password").get_data(as_text=True))
    answer = client.post(
        "/forgotten-password",
        data={"email": email, "csrf_token": token},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        follow_redirects=True,
    )
    page = re.sub(r'value="[^"]*"|"X-CSRFToken": "[^"]*"', "", answer.get_data(as_text=True))
    return answer.status_code, page.replace(email, "the email")


def test_the_link_in_the_email_sets_a_new_password(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        request_reset(client)
        message = received(peer)
    assert message["To"] == account
    assert message["From"] == "PBX Notification Portal <noreply@pbx.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    link = link_in(message, "plain")
    assert link_in(message, "html") == link
    new = "a brand new password"
    answer = post(client, link, password=new, password_confirm=new)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    assert post(app.test_client(), "/sign-in", email=EMAIL, password=new).status_code == 302


def test_the_link_leads_to_the_portal_whatever_host_the_request_names(
    app: Flask, client: FlaskClient, account: str
) -> None:
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        token = csrf_token(client.get("/forgotten-password").get_data(as_text=True))
        form = {"email": EMAIL, "csrf_token": token}
        assert client.post("/forgotten-password", data=form, headers={"Host": "evil.example"}).status_code == 400
        client.post("/forgotten-password", data=form, headers={"Host": "localhost"})
        message = received(peer).as_string()
    assert "evil.example" not in message
    assert "localhost" not in message
    assert "portal.test" in message


def test_a_password_change_is_emailed(app: Flask, sign_in: SignIn, acme: str) -> None:
    browser = sign_in(EMAIL, administers=acme)
    new = "an even longer password"
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        post(browser, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
        message = received(peer)
    assert message["To"] == EMAIL
    body = message.get_body(("plain",))
    assert body is not None
    assert "has just been changed" in body.get_content()
    assert new not in message.as_string()


def test_the_response_is_the_same_for_a_stranger_and_if_no_email_is_sent(
    app: Flask, client: FlaskClient, account: str
) -> None:
    without_server = request_reset(client)
    with closed_port() as port:
        use_server(app, port)
        failing_server = request_reset(client)
        stranger = request_reset(client, "stranger@acme.example")
    assert without_server == failing_server == stranger
    assert without_server[0] == 200


def test_a_silent_mail_server_does_not_delay_the_visitor(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer({"greeting": Fault.SILENCE}) as peer:
        use_server(app, peer.port)
        before = time.monotonic()
        assert request_reset(client)[0] == 200
        assert time.monotonic() - before < 30  # seconds: the mail server has 60
        wait_for(lambda: peer.conversations)


@pytest.mark.slow
def test_a_mail_server_that_greets_late_gets_the_email(app: Flask, client: FlaskClient, account: str) -> None:
    """Nobody waits for the result. Some mail servers greet after 12 seconds, to keep spam away."""
    with SmtpPeer({"greeting": SlowReply("220 peer.test ESMTP", seconds=0.55)}) as peer:
        use_server(app, peer.port)
        request_reset(client)
        wait_for(lambda: peer.messages)


def test_failure_is_logged_without_addresses_and_secrets(
    app: Flask, client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with SmtpPeer({"rcpt": f"550 5.1.1 <{EMAIL}> unknown"}) as peer:
        use_server(app, peer.port)
        request_reset(client)
        wait_for(lambda: "was not sent" in caplog.text)
    assert "rcpt 550" in caplog.text
    assert EMAIL not in caplog.text
    assert "/forgotten-password/" not in caplog.text


def test_a_missing_mail_server_is_logged(client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture) -> None:
    request_reset(client)
    wait_for(lambda: "the system has no mail server" in caplog.text)


def test_a_rejected_password_is_not_tried_again_until_it_is_saved(
    app: Flask, client: FlaskClient, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        use_server(app, peer.port, auth_mode=AuthMode.PLAIN, username="mailer", password="wrong")
        request_reset(client)
        wait_for(lambda: "was not sent: auth 535" in caplog.text)
        with app.app_context():
            server = get_server(None)
            assert server is not None
            assert server.rejected_at is not None
        request_reset(client)
        wait_for(lambda: "save them again" in caplog.text)
        assert len(peer.conversations) == 1
