"""The audit entries of sign-ins, and of what people decide about emails."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.audit.labels import UNKNOWN_ACCOUNT
from tests.audit.test_log import entries
from tests.conftest import SignIn
from tests.pages import PASSWORD, post
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import Post, key, peer, working_tenant
from tests.tenant_fixtures import post as report

__all__ = ["key", "peer", "report", "working_tenant"]

EMAIL = "admin@acme.example"


def done(app: Flask) -> list[tuple[str, str, str]]:
    """Return what was done at the door, by whom and to what."""
    with app.app_context():
        return [
            (each.actor, each.action.removeprefix("account."), each.subject)
            for each in entries()
            if each.action.startswith("account.") and each.action != "account.added"
        ]


def test_signing_in_and_out(app: Flask, admin: FlaskClient, acme: str) -> None:
    assert post(admin, f"/tenants/{acme}/keys", "/sign-out").status_code == 302
    assert done(app) == [(EMAIL, "signed_in", ""), (EMAIL, "signed_out", "")]


def test_a_failed_sign_in_names_the_account_but_never_what_was_typed(
    app: Flask, admin: FlaskClient, client: FlaskClient
) -> None:
    for email in (EMAIL, "MyPassw0rd", "nobody@acme.example", ""):
        assert post(client, "/sign-in", email=email, password="guessed wrong").status_code == 200
    assert done(app)[1:] == [
        ("somebody", "sign_in_failed", EMAIL),
        *[("somebody", "sign_in_failed", UNKNOWN_ACCOUNT)] * 3,
    ]


def test_a_changed_password_is_told_once(app: Flask, admin: FlaskClient) -> None:
    new: dict[str, Any] = {"new_password": "a rather new password", "new_password_confirm": "a rather new password"}
    assert post(admin, "/account/password", password="wrong", **new).status_code == 200
    assert post(admin, "/account/password", password=PASSWORD, **new).status_code == 302
    assert done(app)[1:] == [(EMAIL, "password_changed", EMAIL)]


def test_a_wrong_password_of_someone_who_is_signed_in_is_no_failed_sign_in(app: Flask, admin: FlaskClient) -> None:
    assert post(admin, "/account/confirm", password="wrong").status_code == 200
    assert done(app)[1:] == [(EMAIL, "confirmation_failed", EMAIL)]


def test_looking_is_not_told(app: Flask, admin: FlaskClient, acme: str) -> None:
    for page in ("deliveries", "mail-server", "audit", "audit.csv"):
        admin.get(f"/tenants/{acme}/{page}")
    assert len(done(app)) == 1


def test_events_are_not_told(app: Flask, report: Post, working_tenant: str) -> None:
    with app.app_context():
        before = len(entries())
    assert report().json["status"] == "sent"
    with app.app_context():
        assert len(entries()) == before


@pytest.mark.parametrize(
    ("action", "fault", "told"),
    [
        ("send-now", "451 4.3.0 later", "mail.sent_now"),
        ("discard", "451 4.3.0 later", "mail.discarded"),
        ("send-again", "250 2.0.0 ok", "mail.sent_again"),
    ],
)
def test_who_decided_about_a_mail(
    app: Flask, sign_in: SignIn, report: Post, working_tenant: str, peer: SmtpPeer, action: str, fault: str, told: str
) -> None:
    peer.script = {"dot": fault}
    message_id = report().json["deliveries"][0]["message_id"]
    browser = sign_in(EMAIL, administers=working_tenant)
    log = f"/tenants/{working_tenant}/deliveries"
    with app.app_context():
        before = len(entries())
    page = browser.get(log).get_data(as_text=True)
    delivery = page.partition('name="delivery" value="')[2].partition('"')[0]
    for _ in range(2 if action == "discard" else 1):
        post(browser, log, f"{log}/{action}", delivery=delivery)
    with app.app_context():
        (entry,) = entries()[before:]
    assert (entry.actor, entry.action, entry.subject) == (EMAIL, told, "1 email")
    assert entry.changes == {"message_ids": [None, [message_id]]}
