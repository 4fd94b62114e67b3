"""The test email cannot be used to flood a mailbox or to send to strangers."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from portal.accounts.models import RateLimit
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode
from tests.conftest import SignIn
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post, entered, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

PAGE = "/tenants/acme.example/mail-server"
VICTIM = "victim@stranger.example"
OTHER_RECIPIENTS: list[dict[str, Any]] = [
    *({field: VICTIM} for field in ("to", "recipients", "email", "address", "rcpt", "cc", "bcc", "username")),
    {"to": ["recipients", VICTIM], "recipients": VICTIM},
    {"to": ["me", VICTIM]},
]


def form(peer: SmtpPeer, **changes: Any) -> dict[str, Any]:
    own = {"provider": "smtp", "host": "127.0.0.1", "port": str(peer.port), "encryption": "none"}
    return {**own, "auth_mode": "none", "sender_email": "pbx@acme.example", **changes}


def test_it_is_sent_only_to_the_account_or_the_recipients(
    admin: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    token = csrf_token(admin.get(PAGE).text)
    for values in OTHER_RECIPIENTS:
        peer.conversations.clear()
        answer = admin.post(f"{PAGE}/test", data={"csrf_token": token, **form(peer, **values)})
        assert "accepted the test email" in answer.text, values
        (message,) = peer.messages
        assert message.recipients in (["admin@acme.example"], PEOPLE), values
        assert VICTIM.encode() not in message.content, values


def test_no_field_can_inject_a_recipient(admin: FlaskClient, working_tenant: str, peer: SmtpPeer) -> None:
    for field in ("sender_email", "host", "username"):
        injected = form(peer, **{field: f"pbx@acme.example\r\nRCPT TO:<{VICTIM}>"})
        assert submit(admin, PAGE, f"{PAGE}/test", **injected).status_code == 422, field
        assert not peer.conversations, field


def test_test_emails_per_minute_and_per_hour_are_limited(
    app: Flask, admin: FlaskClient, sign_in: SignIn, working_tenant: str
) -> None:
    """All test emails of an account are counted together, those with errors in the form too."""
    other = sign_in("other@acme.example", administers=working_tenant)

    def let_a_minute_pass() -> None:
        with app.app_context():
            db.session.execute(update(RateLimit).values(empty_at=RateLimit.empty_at - timedelta(seconds=61)))
            db.session.commit()

    def statuses(browser: FlaskClient, times: int) -> list[int]:
        token = csrf_token(browser.get(PAGE).get_data(as_text=True))
        return [browser.post(f"{PAGE}/test", data={"csrf_token": token}).status_code for _ in range(times)]

    for _ in range(3):
        assert statuses(admin, 10) == [422] * 10
        let_a_minute_pass()
    assert statuses(admin, 3) == [422, 429, 429], "every two minutes, one more is free"
    assert statuses(other, 12) == [422] * 10 + [429, 429]


REVEALING_TEXT = "authentication failed for relay-user@corp.internal on smtp.corp.internal"


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "auth"])
def test_tenants_do_not_see_the_host_and_account_of_the_shared_server(
    app: Flask, admin: FlaskClient, system: FlaskClient, post: Post, working_tenant: str, stage: str
) -> None:
    script = {stage: f"535 5.7.8 {REVEALING_TEXT}" if stage == "auth" else f"554 5.7.1 {REVEALING_TEXT}"}
    with SmtpPeer(script, accounts={"relay-user": "secret"}) as server, app.app_context():
        mail_server_service.remove(1)
        account = {"auth_mode": AuthMode.AUTO, "username": "relay-user", "password": "secret"}
        mail_server_service.save(None, entered(server.port, provider="gmail", **account))
        mail_server_service.share(True)
        shown = str(post().json)
        shown += submit(admin, PAGE, f"{PAGE}/test", to="me").get_data(as_text=True)
        shown += admin.get("/tenants/acme.example/deliveries").get_data(as_text=True)
        (event,) = sql("SELECT id FROM events")[0]
        shown += admin.get(f"/tenants/acme.example/deliveries/{event}").get_data(as_text=True)
        shown += str(sql("SELECT to_jsonb(each) FROM delivery_recipients AS each"))
    assert script[stage].partition(" ")[0] in shown, "the code is shown"
    for word in ("corp.internal", "relay-user", "127.0.0.1"):
        assert word not in shown
