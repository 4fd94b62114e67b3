"""Attacks on signing in at a provider: each is tried, and fails."""

import logging
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.models import Membership
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import consent
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.client import AuthMode
from portal.tenants import service as tenant_service
from tests.conftest import SignIn
from tests.deliveries.test_oauth_events import connected
from tests.mail_servers.oauth.conftest import oauth_tenant, token_server
from tests.mail_servers.oauth.test_views import APP, WAYS, come_back, go_to_provider, query_of, sign_in_at, stored
from tests.pages import post as fill_in
from tests.security import secret_canaries
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, entered, key, post
from tests.token_server import CLIENT_SECRET, Denied, TokenServer

pytestmark = pytest.mark.slow

__all__ = ["connected", "key", "oauth_tenant", "post", "token_server"]

NOT_STARTED = "This sign-in was not started here"


@pytest.fixture
def begun(admin: FlaskClient, oauth_tenant: int, token_server: TokenServer) -> str:
    """The redirect that ends a sign-in of Acme's administrator."""
    fill_in(admin, WAYS, **APP)
    return token_server.authorize(go_to_provider(admin))


def is_connected(app: Flask, owner: int) -> bool:
    connection = stored(app, owner)
    return connection is not None and connection.connected_at is not None


def test_a_redirect_of_another_session_connects_nothing(
    app: Flask, sign_in: SignIn, admin: FlaskClient, acme: str, oauth_tenant: int, token_server: TokenServer, begun: str
) -> None:
    """An attacker has the victim follow the redirect that brings the attacker's mailbox."""
    victim = sign_in("second@acme.example", administers=acme)
    assert NOT_STARTED in come_back(victim, begun).text
    go_to_provider(victim)  # even while the victim signs in
    assert NOT_STARTED in come_back(victim, begun).text
    assert not token_server.token_requests
    assert not is_connected(app, oauth_tenant)


def test_a_forged_redirect_does_not_end_the_sign_in_that_was_begun(
    app: Flask, admin: FlaskClient, oauth_tenant: int, begun: str
) -> None:
    state = query_of(begun)["state"]
    for forged in ("", "x", state[:-1], state + "x", "é"):
        assert NOT_STARTED in come_back(admin, f"/oauth/callback?code=evil&state={forged}").text
    assert "Connected to Microsoft" in come_back(admin, begun).text


def test_a_redirect_is_followed_once_and_in_time(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, begun: str
) -> None:
    come_back(admin, begun)
    assert NOT_STARTED in come_back(admin, begun).text
    assert len(token_server.token_requests) == 1
    pending = consent.PendingSignIn(
        owner=1, domain="acme.example", account_id=1, provider="google", state="s", code_verifier="v", began_at=1000.0
    )
    assert consent.is_answer_to(pending, "s", now=1000.0 + consent.LIFETIME)
    assert not consent.is_answer_to(pending, "s", now=1001.0 + consent.LIFETIME)


def test_who_no_longer_administers_the_tenant_connects_nothing(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, begun: str
) -> None:
    with app.app_context():
        db.session.query(Membership).delete()
        db.session.commit()
    assert come_back(admin, begun).status_code == 404
    assert not token_server.token_requests
    assert not is_connected(app, oauth_tenant)


def test_a_domain_that_became_another_tenants_is_not_connected(
    app: Flask, system: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    fill_in(system, WAYS, **APP)
    back = token_server.authorize(go_to_provider(system))
    with app.app_context():
        sql("UPDATE tenants SET domain = 'old.example' WHERE id = :id", id=oauth_tenant)
        tenant_service.add("Other", "acme.example", "UTC")
    assert come_back(system, back).status_code == 404
    assert not token_server.token_requests


def test_the_verifier_is_needed_and_stays_in_the_session(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, begun: str
) -> None:
    """A stolen code is worth nothing without the session that it is for."""
    with admin.session_transaction() as session:
        session["oauth_sign_in"] = {**session["oauth_sign_in"], "code_verifier": ""}
    assert "AADSTS501481" in come_back(admin, begun).text
    assert not is_connected(app, oauth_tenant)


def test_a_stranger_is_sent_to_sign_in(client: FlaskClient, oauth_tenant: int, begun: str) -> None:
    parts = urlsplit(begun)
    answer = client.get(f"{parts.path}?{parts.query}")
    assert (answer.status_code, "/sign-in" in answer.headers["Location"]) == (302, True)


def test_a_tenant_cannot_name_a_token_server(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    """Neither as the directory nor as another field: secrets are sent to the authority of the settings only."""
    for directory in ("evil.example/x", "..", "@evil.example", "evil.example?", "evil.example#", "a%2fb.example"):
        assert fill_in(admin, WAYS, **{**APP, "directory": directory}).status_code == 422
    names: dict[str, Any] = {
        "authority": "https://evil.example",
        "token_url": "https://evil.example",
        "provider": "evil",
    }
    fill_in(admin, WAYS, **APP, **names)
    sign_in_at(admin, token_server)
    assert token_server.token_requests
    with app.app_context():
        columns = {column.name for column in OAuthConnection.__table__.columns}
    assert not [name for name in columns if re.search("url|host|authority|endpoint", name)]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "smtp.office365.com.evil.example", "xsmtp.gmail.com.evil", "evil-outlook.com", "mx.gmail.com"],
)
def test_tokens_are_for_the_providers_own_mail_servers(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, begun: str, host: str
) -> None:
    come_back(admin, begun)
    with app.app_context():
        refused = mail_server_service.save(oauth_tenant, entered(587, host=host, auth_mode=AuthMode.OAUTH))
        assert isinstance(refused, Refusal)
        assert refused.field == "host"
        sql("UPDATE mail_servers SET host = :host", host=host)
        server = mail_server_service.get_server(oauth_tenant)
        assert server is not None
        assert server.smtp_settings.token_source is None


def test_other_settings_forget_the_connection(app: Flask, admin: FlaskClient, oauth_tenant: int, begun: str) -> None:
    come_back(admin, begun)
    assert is_connected(app, oauth_tenant)
    with app.app_context():
        saved = mail_server_service.save(oauth_tenant, entered(2525, auth_mode=AuthMode.NONE))
        assert isinstance(saved, MailServer)
    assert stored(app, oauth_tenant) is None


def test_planted_tokens_are_found_nowhere(
    app: Flask,
    admin: FlaskClient,
    acme: str,
    post: Post,
    connected: SmtpPeer,
    token_server: TokenServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither in tables, jobs, pages, answers and logs, while they work, nor as they end."""
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.NOTSET)
    said, secrets = [], {CLIENT_SECRET}

    def note(answer: object) -> None:
        said.append(str(answer))
        secrets.update(token_server.access_tokens, token_server.refresh_tokens, token_server.codes)

    back = token_server.authorize(go_to_provider(admin))
    note(fill_in(admin, WAYS, **{**APP, "client_id": ""}).text)
    secrets.add(query_of(back)["code"])
    note(come_back(admin, back).text)
    with connected as peer:
        note(post().json)
        peer.script = {"auth": "535 5.7.3 unsuccessful"}
        with app.app_context():
            sql("UPDATE mail_servers SET saved_at = now()")
        note(post().json)
        token_server.revoke()
        token_server.denial = Denied("invalid_client", f"AADSTS7000222: {CLIENT_SECRET} has expired.")
        with app.app_context():
            sql("UPDATE oauth_connections SET access_token_expires_at = now()")
            sql("UPDATE mail_servers SET rejected_at = NULL, saved_at = now()")
        note(post().json)
        token_server.answer = (200, b'{"access_token": "%b"}' % next(iter(secrets)).encode())
        with app.app_context():
            sql("UPDATE mail_servers SET rejected_at = NULL, saved_at = now()")
        note(post().json)
    with app.app_context():
        server = mail_server_service.get_server(1)
        assert server is not None
        note(repr(server.smtp_settings))
        tables = secret_canaries.tables()
    assert len(secrets) >= 6
    assert "AADSTS7000222" in tables
    for name, where in {
        "tables": tables,
        "pages": secret_canaries.pages(app, [admin], acme),
        "answers": "\n".join(said),
        "log": caplog.text,
        "output": "".join(capfd.readouterr()),
    }.items():
        assert not secret_canaries.lines(where, secrets), name
    assert "/oauth2/v2.0/token" in caplog.text, "the requests are in the log, without their bodies"
