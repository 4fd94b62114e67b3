"""The test e-mail as a mail bomb, or as a relay to strangers: whom it reaches is not the visitor's to say."""

import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode
from tests.conftest import SignIn
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.ready import PEOPLE, Post, entered, key, peer, post, ready
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["key", "peer", "post", "ready"]

PAGE = "/tenants/acme.example/mail-server"
VICTIM = "victim@stranger.example"
MEANT_FOR_OTHERS: list[dict[str, Any]] = [
    *({field: VICTIM} for field in ("to", "recipients", "email", "address", "rcpt", "cc", "bcc", "username")),
    {"to": ["recipients", VICTIM], "recipients": VICTIM},
    {"to": ["me", VICTIM]},
]


def form(peer: SmtpPeer, **changes: Any) -> dict[str, Any]:
    own = {"provider": "smtp", "host": "127.0.0.1", "port": str(peer.port), "encryption": "none"}
    return {**own, "auth_mode": "none", "sender_email": "pbx@acme.example", **changes}


@pytest.mark.parametrize("values", MEANT_FOR_OTHERS, ids=str)
def test_it_reaches_nobody_but_the_account_and_the_recipients(
    admin: FlaskClient, ready: str, peer: SmtpPeer, values: dict[str, Any]
) -> None:
    answer = submit(admin, PAGE, f"{PAGE}/test", **form(peer, **values))
    assert "took the test e-mail" in answer.get_data(as_text=True)
    (mail,) = peer.mails
    assert mail.recipients in (["admin@acme.example"], PEOPLE)
    assert VICTIM.encode() not in mail.content


@pytest.mark.parametrize("field", ["sender_email", "host", "username"])
def test_no_field_smuggles_in_a_recipient(admin: FlaskClient, ready: str, peer: SmtpPeer, field: str) -> None:
    smuggled = form(peer, **{field: f"pbx@acme.example\r\nRCPT TO:<{VICTIM}>"})
    assert submit(admin, PAGE, f"{PAGE}/test", **smuggled).status_code == 422
    assert not peer.conversations


def test_a_minute_and_an_hour_have_an_end(
    admin: FlaskClient, sign_in: SignIn, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all ways together: with the values in the form, and through the shared server."""
    other, later, clock = sign_in("other@acme.example", administers=ready), 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: clock() + later)

    def statuses(browser: FlaskClient, times: int) -> list[int]:
        token = csrf_token(browser.get(PAGE).get_data(as_text=True))
        ways = [("/test", 422), ("/test-shared", 404)]
        return [
            ways[turn % 2][1] - browser.post(PAGE + ways[turn % 2][0], data={"csrf_token": token}).status_code
            for turn in range(times)
        ]

    for _ in range(3):
        assert statuses(admin, 10) == [0] * 10
        later += 61
    assert statuses(admin, 2) == [422 - 429, 404 - 429]
    assert statuses(other, 12) == [0] * 10 + [422 - 429, 404 - 429]


SECRETIVE = "authentication failed for relay-user@corp.internal on smtp.corp.internal"


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "auth"])
def test_tenants_are_not_told_where_the_shared_server_is_and_who_signs_in_to_it(
    app: Flask, admin: FlaskClient, system: FlaskClient, post: Post, ready: str, stage: str
) -> None:
    refused = {stage: f"535 5.7.8 {SECRETIVE}" if stage == "auth" else f"554 5.7.1 {SECRETIVE}"}
    with SmtpPeer(refused, accounts={"relay-user": "secret"}) as server, app.app_context():
        settings.remove(1)
        account = {"auth_mode": AuthMode.AUTO, "username": "relay-user", "password": "secret"}
        settings.save(None, entered(server.port, provider="gmail", **account))
        settings.share(True)
        told = str(post().json)
        told += submit(admin, PAGE, f"{PAGE}/test-shared", to="me").get_data(as_text=True)
        told += admin.get("/tenants/acme.example/deliveries").get_data(as_text=True)
        (event,) = sql("SELECT id FROM events")[0]
        told += admin.get(f"/tenants/acme.example/deliveries/{event}").get_data(as_text=True)
        told += str(sql("SELECT to_jsonb(each) FROM delivery_recipients AS each"))
    assert refused[stage].partition(" ")[0] in told, "what it means is told"
    for word in ("corp.internal", "relay-user", "127.0.0.1"):
        assert word not in told
