"""Events of a tenant whose mailbox is connected: sent, held when access ends, and released by signing in again."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode
from portal.notifications import recipients, settings
from portal.tenants import service as tenant_service
from tests.due_emails import send_due_emails
from tests.mail_servers.oauth.conftest import oauth_tenant, token_server
from tests.mail_servers.oauth.test_views import APP, PAGE, WAYS, sign_in_at
from tests.pages import post as fill_in
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post, entered, key, post
from tests.token_server import MAILBOX, TokenServer

__all__ = ["key", "oauth_tenant", "post", "token_server"]


class ValidTokens(dict[str, str]):
    """The mailbox's password is its newest token, as long as it is valid."""

    def __init__(self, server: TokenServer) -> None:
        super().__init__({MAILBOX: ""})
        self.server = server

    def get(self, user: str, default: object = None) -> str | None:  # type: ignore[override]
        return next(reversed(self.server.access_tokens), None) if user in self else None


@pytest.fixture
def connected(app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer) -> SmtpPeer:
    """A mail server to which Acme signs in with the tokens of its connected mailbox."""
    peer = SmtpPeer(mechanisms="XOAUTH2", accounts=ValidTokens(token_server))
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        mail_server_service.save(tenant.id, entered(peer.port, auth_mode=AuthMode.OAUTH))
        recipients.replace(tenant, PEOPLE)
        settings.set_enabled(tenant, EVENT_TYPES, on=True)
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    return peer


def test_email_is_sent_held_and_released_as_access_comes_and_goes(
    app: Flask, admin: FlaskClient, post: Post, connected: SmtpPeer, token_server: TokenServer
) -> None:
    with connected as peer:
        assert post().json["status"] == "sent"
        assert peer.conversations[0].signed_in_as == MAILBOX

        token_server.revoke()
        with app.app_context():
            sql("UPDATE oauth_connections SET access_token_expires_at = now()")
            sql("UPDATE mail_servers SET saved_at = now()")  # so that no open session is used
        held = post().json
        assert (held["status"], held["reason"]) == ("held", "mail_server_rejected")
        result = held["deliveries"][0]["recipients"][0]
        assert (result["stage"], result["code"]) == ("token", None)
        assert result["text"] == "Microsoft rejected access: invalid_grant (AADSTS700082)."
        requests = len(token_server.token_requests)
        assert post().json["reason"] == "mail_server_rejected"
        assert len(token_server.token_requests) == requests  # a connection that has ended is left alone
        overview = admin.get("/tenants/acme.example/overview").text
        assert "2 emails are held: the mailbox is not connected." in overview
        assert "Sign in again" in admin.get(PAGE).text

        sign_in_at(admin, token_server)
        with app.app_context():
            assert send_due_emails() == 2
        assert len(peer.messages) == 3
        assert "Connected to Microsoft" in admin.get(PAGE).text


def test_a_token_that_the_mail_server_rejects_is_replaced_once(
    app: Flask, post: Post, connected: SmtpPeer, token_server: TokenServer
) -> None:
    with connected as peer:
        peer.accounts = {MAILBOX: "another"}
        requests = len(token_server.token_requests)
        assert post().json["reason"] == "mail_server_rejected"
        assert len(token_server.token_requests) == requests + 1


def test_while_the_token_server_fails_email_is_deferred(
    app: Flask, post: Post, connected: SmtpPeer, token_server: TokenServer
) -> None:
    with connected as peer, app.app_context():
        sql("UPDATE oauth_connections SET access_token_expires_at = now()")
        token_server.answer = (503, b"")
        assert post().json["status"] == "deferred"
        token_server.answer = None
        sql("UPDATE mail_servers SET paused_until = NULL")
        sql("UPDATE deliveries SET next_attempt_at = now()")
        assert send_due_emails() == 1
        assert len(peer.messages) == 1


def test_the_steps_of_a_test_email_begin_with_the_token(
    admin: FlaskClient, connected: SmtpPeer, token_server: TokenServer
) -> None:
    with connected as peer:
        values = {
            "provider": "smtp",
            "host": "127.0.0.1",
            "port": str(peer.port),
            "encryption": "none",
            "auth_mode": "oauth",
            "username": MAILBOX,
            "sender_email": MAILBOX,
        }
        page = fill_in(admin, PAGE, f"{PAGE}/test", **values).text  # type: ignore[arg-type]
        assert "<strong>Access token</strong> <span>Microsoft</span>" in page
        assert "XOAUTH2 as pbx@acme.example" in page
        assert "accepted the test email" in page
        token_server.revoke()
        page = fill_in(admin, PAGE, f"{PAGE}/test", **{**values, "username": "x@acme.example"}).text  # type: ignore[arg-type]
        assert "AADSTS700082" in page
        assert "sign in again" in page
