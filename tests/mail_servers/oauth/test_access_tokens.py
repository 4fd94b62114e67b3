"""Access tokens: cached, refreshed in time by one process, and never lost."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask, current_app

from portal import bounded_requests
from portal.database import fast_sql
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import access_tokens, token_requests
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.access_tokens import ConnectionTokens
from portal.mail_servers.oauth.identity_providers import PROVIDERS_BY_KEY, GrantType
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.oauth.service import EnteredApp
from portal.mail_servers.oauth.token_requests import GrantedTokens
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpFailure, Stage, advice_for, pause_for
from tests.smtp_peer import silent_port
from tests.sql import sql
from tests.token_server import CLIENT_ID, CLIENT_SECRET, DIRECTORY, MAILBOX, Denied, TokenServer

MICROSOFT = PROVIDERS_BY_KEY["microsoft"]


@pytest.fixture
def tokens(context: Flask, oauth_tenant: int, token_server: TokenServer) -> ConnectionTokens:
    """The tokens of Acme, whose mailbox somebody has connected. There is no token in the cache."""
    app = EnteredApp(CLIENT_ID, DIRECTORY, CLIENT_SECRET)
    assert isinstance(oauth_service.register_app(oauth_tenant, app), OAuthConnection)
    token_server.refresh_tokens.append("first-refresh-token")
    granted = GrantedTokens("expired", 0, "first-refresh-token", MAILBOX)
    assert oauth_service.connect_signed_in(oauth_tenant, MICROSOFT, granted) is None
    return source(oauth_tenant)


def source(owner: int) -> ConnectionTokens:
    """Return what the mail server's settings have as their source of tokens."""
    server = mail_server_service.get_server(owner)
    assert server is not None
    found = server.smtp_settings.token_source
    assert isinstance(found, ConnectionTokens)
    return found


def connection() -> OAuthConnection:
    """Return the connection as it is stored now."""
    with every_tenant():
        return db.session.query(OAuthConnection).execution_options(populate_existing=True).one()


def failure_of(tokens: ConnectionTokens) -> SmtpFailure:
    with pytest.raises(SmtpFailure) as raised:
        tokens.access_token()
    assert raised.value.reply.stage is Stage.TOKEN
    return raised.value


def test_a_token_is_requested_once_and_kept(tokens: ConnectionTokens, token_server: TokenServer) -> None:
    token = tokens.access_token()
    assert token in token_server.access_tokens
    assert [tokens.access_token() for _ in range(3)] == [token] * 3
    (form,) = token_server.token_requests
    assert form["grant_type"] == "refresh_token"
    assert token_server.requests[0][0] == f"/{DIRECTORY}/oauth2/v2.0/token"
    assert mail_server_service.get_server(tokens.owner).username == MAILBOX  # type: ignore[union-attr]


def test_each_refresh_token_is_stored(tokens: ConnectionTokens, token_server: TokenServer) -> None:
    for _ in range(3):
        used = list(token_server.refresh_tokens)
        tokens.access_token()
        assert token_server.token_requests[-1]["refresh_token"] == used[-1]
        token_server.refresh_tokens = token_server.refresh_tokens[-1:]  # an earlier one is worth nothing now
        sql("UPDATE oauth_connections SET access_token_expires_at = now() + interval '4 minutes'")
    assert len(token_server.token_requests) == 3


def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    token_server.rotates = False
    for _ in range(2):
        tokens.access_token()
        sql("UPDATE oauth_connections SET access_token_expires_at = now()")
    assert [form["refresh_token"] for form in token_server.token_requests] == ["first-refresh-token"] * 2


def test_a_rejected_token_is_replaced_unless_another_process_did(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    first = tokens.access_token()
    second = tokens.access_token(rejected=first)
    assert second != first
    assert tokens.access_token(rejected=first) == second
    assert len(token_server.token_requests) == 2


def test_one_of_many_requests_the_token(context: Flask, tokens: ConnectionTokens, token_server: TokenServer) -> None:
    def get_token(_: int) -> str:
        with context.app_context():
            return tokens.access_token()

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(get_token, range(6)))) == 1
    assert len(token_server.token_requests) == 1


def test_the_lease_of_a_dead_process_expires(tokens: ConnectionTokens, token_server: TokenServer) -> None:
    sql("UPDATE oauth_connections SET refreshing_until = now() + interval '0.3 seconds'")
    assert tokens.access_token() in token_server.access_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        *((503, b"{}"), (429, b"slow down"), (302, b""), (200, b"<html>"), (200, b"[]")),
        *(
            (200, b'{"access_token": "a", "token_type": "Bearer", "expires_in": Infinity}'),
            (200, b'{"access_token": "a", "token_type": "Bearer", "expires_at": [1]}'),
            (200, b'{"access_token": "a b"}'),
            (200, b'{"access_token": "' + b"x" * 200_000 + b'", "token_type": "Bearer"}'),
        ),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1][-20:]!r}",
)
def test_a_token_server_that_fails_is_tried_again_later(
    tokens: ConnectionTokens, token_server: TokenServer, answer: tuple[int, bytes]
) -> None:
    token_server.answer = answer
    reply = failure_of(tokens).reply
    assert (reply.kind, pause_for(reply)) == (ReplyKind.TEMPORARY, Pause.BRIEF)
    assert "at the moment" in advice_for(reply)
    assert connection().lapsed_at is None
    assert connection().refreshing_until is None
    assert not any(path == "/elsewhere/token" for path, _ in token_server.requests)
    token_server.answer = None
    assert tokens.access_token() in token_server.access_tokens


@pytest.mark.parametrize(
    ("lifetime", "stored"), [(-1, 0), (1e20, 86_400), ("x", 3600), (float("nan"), 0), ([], 3600), (None, 3600)]
)
def test_a_lifetime_is_bounded(
    tokens: ConnectionTokens, token_server: TokenServer, lifetime: object, stored: float
) -> None:
    answer = {"access_token": "token", "token_type": "Bearer", "expires_in": lifetime, "expires_at": 1}
    token_server.answer = (200, json.dumps(answer).encode())
    assert token_requests.fetch(connection().token_request()).lifetime == stored


def test_while_the_token_server_fails_a_token_is_used_to_its_end(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    token = tokens.access_token()
    sql("UPDATE oauth_connections SET access_token_expires_at = now() + interval '1 minute'")
    token_server.answer = (503, b"")
    assert tokens.access_token() == token


def test_a_revoked_connection_lapses_until_somebody_signs_in(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    token_server.revoke()
    reply = failure_of(tokens).reply
    assert (reply.kind, pause_for(reply)) == (ReplyKind.SETTINGS, Pause.UNTIL_SAVED)
    assert reply.text == "Microsoft rejected access: invalid_grant (AADSTS700082)."
    assert "sign in again" in advice_for(reply)
    assert connection().lapse_reason == reply.text
    status = oauth_service.status(mail_server_service.get_server(tokens.owner))
    assert status is not None
    assert status.state == "lapsed"
    assert "AADSTS700082" in status.reason
    assert oauth_service.connect_signed_in(tokens.owner, MICROSOFT, GrantedTokens("new", 3600, "other")) is None
    assert tokens.access_token() == "new"
    assert (connection().lapsed_at, connection().lapse_reason) == (None, None)
    assert tokens.owner is not None
    assert tokens != source(tokens.owner)  # so that no open session of the old one is used


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "description", "advice"),
    [
        ("invalid_grant", "AADSTS65001: The user has not consented", "has to consent"),
        ("invalid_grant", "AADSTS90094: Admin consent is required", "has to consent"),
        ("invalid_grant", "AADSTS50076: Due to a configuration change", "multi-factor"),
        ("interaction_required", "AADSTS50079: enroll", "multi-factor"),
        ("invalid_grant", "AADSTS50078: expired MFA", "multi-factor"),
        ("invalid_grant", "AADSTS700082: inactivity", "sign in again"),
        ("invalid_grant", "AADSTS70008: expired", "sign in again"),
        ("invalid_grant", "AADSTS50173: password changed", "sign in again"),
        ("invalid_client", "AADSTS7000215: Invalid client secret", "not its ID"),
        ("invalid_client", "AADSTS7000222: The secret keys are expired", "has expired"),
        ("unauthorized_client", "AADSTS700016: not found", "client ID"),
        ("invalid_request", "AADSTS90002: Tenant not found", "client ID"),
        ("access_denied", "AADSTS53003: Access has been blocked", "Conditional Access"),
        ("invalid_grant", "AADSTS99999999: something new", "sign in again"),
    ],
)
def test_what_the_errors_of_microsoft_mean(
    tokens: ConnectionTokens, token_server: TokenServer, error: str, description: str, advice: str
) -> None:
    token_server.denial = Denied(error, description)
    reply = failure_of(tokens).reply
    assert reply.kind is ReplyKind.SETTINGS
    assert description.split(":")[0] in reply.text
    assert error in reply.text
    assert advice in advice_for(reply)


def test_a_temporary_error_is_no_lapse(tokens: ConnectionTokens, token_server: TokenServer) -> None:
    token_server.denial = Denied("temporarily_unavailable", "AADSTS90033: A transient error")
    assert failure_of(tokens).reply.kind is ReplyKind.TEMPORARY
    assert connection().lapsed_at is None


def test_the_provider_cannot_put_its_own_words_into_the_portal(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    token_server.denial = Denied("<b>evil</b>", f"{MAILBOX} {CLIENT_SECRET}")
    assert failure_of(tokens).reply.text == "Microsoft rejected access: unknown error."


def test_tokens_are_only_those_of_the_owner_and_the_provider(
    context: Flask, tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    saved_at = tokens.saved_at
    for other in (
        ConnectionTokens(None, "microsoft", saved_at),
        ConnectionTokens(2, "microsoft", saved_at),
        ConnectionTokens(tokens.owner, "google", saved_at),
    ):
        reply = failure_of(other).reply
        assert (reply.kind, reply.text) == (ReplyKind.SETTINGS, "No mailbox is connected.")
    assert not token_server.requests


def test_a_token_that_was_moved_to_another_owner_or_column_is_not_used(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    tokens.access_token()
    sql("UPDATE oauth_connections SET access_token_encrypted = refresh_token_encrypted")
    assert failure_of(tokens).reply.text == "The stored access cannot be decrypted."
    sql("UPDATE oauth_connections SET access_token_encrypted = NULL, tenant_id = NULL")
    assert failure_of(ConnectionTokens(None, "microsoft", None)).reply.kind is ReplyKind.SETTINGS
    assert len(token_server.token_requests) == 1


def test_equal_sources_share_connections_and_reveal_nothing(
    tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    assert tokens.owner is not None
    assert tokens == source(tokens.owner)
    shown = repr((tokens, connection(), connection().token_request(), GrantedTokens("abc-token", 1, "def-token")))
    assert not any(secret in shown for secret in (tokens.access_token(), CLIENT_SECRET, "first-refresh", "-token'"))


def test_disconnecting_and_other_settings_end_the_connection(
    context: Flask, tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    tokens.access_token()
    oauth_service.disconnect(tokens.owner)
    assert failure_of(tokens).reply.text == "No mailbox is connected."
    assert not sql("SELECT id FROM oauth_connections")


@pytest.mark.parametrize("grant_type", [GrantType.CLIENT_CREDENTIALS])
def test_an_app_gets_tokens_without_a_person(
    context: Flask, oauth_tenant: int, token_server: TokenServer, grant_type: GrantType
) -> None:
    wrong = EnteredApp(CLIENT_ID, DIRECTORY, "its-id-not-its-value", mailbox=MAILBOX)
    refused = oauth_service.connect_without_person(oauth_tenant, grant_type, wrong)
    assert isinstance(refused, SmtpFailure)
    assert "AADSTS7000215" in oauth_service.explain(refused)
    assert mail_server_service.get_connection(oauth_tenant) is None
    right = EnteredApp(CLIENT_ID, DIRECTORY, CLIENT_SECRET, mailbox=MAILBOX)
    connected = oauth_service.connect_without_person(oauth_tenant, grant_type, right)
    assert isinstance(connected, oauth_service.MailboxStatus)
    assert (connected.state, connected.mailbox) == ("connected", MAILBOX)
    assert source(oauth_tenant).access_token() in token_server.access_tokens
    assert token_server.token_requests[-1]["scope"] == "https://outlook.office365.com/.default"
    kept = EnteredApp(CLIENT_ID, DIRECTORY, mailbox="other@acme.example")
    assert not isinstance(oauth_service.connect_without_person(oauth_tenant, grant_type, kept), Refusal)
    server = mail_server_service.get_server(oauth_tenant)
    assert isinstance(server, MailServer)
    assert server.username == "other@acme.example"


def test_a_request_takes_a_bounded_time() -> None:
    longest = timedelta(seconds=sum(bounded_requests.TIMEOUTS) + bounded_requests.TOTAL_TIMEOUT)
    assert longest <= access_tokens.LEASE


def test_a_token_is_used_even_if_it_cannot_be_stored(
    tokens: ConnectionTokens, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fast_sql.run

    def fail_to_store(statement: str, *arguments: Any, **options: Any) -> Any:
        if statement == access_tokens.STORE:
            raise psycopg.OperationalError
        return run(statement, *arguments, **options)

    monkeypatch.setattr(fast_sql, "run", fail_to_store)
    monkeypatch.setattr(access_tokens, "STORE_RETRY_DELAYS", ())
    assert tokens.access_token() in token_server.access_tokens


def test_a_token_server_that_does_not_respond_delays_one_and_not_everyone(
    tokens: ConnectionTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_requests, "TIMEOUTS", (0.3, 0.3))
    monkeypatch.setattr(token_requests, "RETRY_INTERVAL", 600)
    with silent_port() as port:
        settings = current_app.extensions["settings"]
        nowhere = {"microsoft_authority": f"http://127.0.0.1:{port}"}
        monkeypatch.setitem(current_app.extensions, "settings", settings.model_copy(update=nowhere))
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            assert failure_of(tokens).reply.text == "Microsoft's token server is not available."
            seconds.append(time.monotonic() - began)
            monkeypatch.setattr(token_requests, "TIMEOUTS", (60, 60))
    assert seconds[0] >= 0.3
    assert max(seconds[1:]) < 30


@pytest.mark.parametrize("seconds_per_byte", [0, 0.2])
def test_a_response_that_is_cut_or_slow_is_given_up(
    tokens: ConnectionTokens, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch, seconds_per_byte: float
) -> None:
    monkeypatch.setattr(bounded_requests, "TOTAL_TIMEOUT", 0.3)
    token_server.seconds_per_byte = seconds_per_byte
    began = time.monotonic()
    assert failure_of(tokens).reply.kind is ReplyKind.TEMPORARY
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("id_token", "account"),
    [
        ({"email": "a@acme.example", "preferred_username": "b@acme.example"}, "a@acme.example"),
        ({"preferred_username": "b@acme.example"}, "b@acme.example"),
        *(({"email": wrong}, None) for wrong in ("ann", 7, None, ["a@b"], "a@b\r\nX: y", "a@" + "b" * 300)),
        *((text, None) for text in ("", "a.b.c", "e30", "e30.W10.", "." * 1000, "e30." + "W1tb" * 20_000)),
        (None, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_account_is_read_from_what_an_id_token_may_hold(
    tokens: ConnectionTokens, token_server: TokenServer, id_token: object, account: str | None
) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(id_token).encode()).rstrip(b"=").decode()
    encoded = f"e30.{payload}." if isinstance(id_token, dict) else id_token
    answer = {"access_token": "token", "token_type": "bearer", "id_token": encoded}
    token_server.answer = (200, json.dumps(answer).encode())
    granted = token_requests.fetch(connection().token_request())
    assert (granted.access_token, granted.account, granted.lifetime) == ("token", account, 3600)
