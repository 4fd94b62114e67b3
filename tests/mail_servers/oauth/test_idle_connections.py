"""Connections that send nothing: kept alive, and their end is noticed."""

import pytest
from flask import Flask

from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.access_tokens import ConnectionTokens
from portal.mail_servers.oauth.idle_connections import refresh_idle
from portal.mail_servers.oauth.service import EnteredApp
from portal.mail_servers.oauth.token_requests import GrantedTokens
from portal.mail_servers.smtp.client import AuthMode
from portal.tenants import service as tenant_service
from tests.mail_servers.oauth.test_access_tokens import MICROSOFT, connection, tokens
from tests.sql import sql
from tests.tenant_fixtures import entered
from tests.token_server import CLIENT_ID, CLIENT_SECRET, DIRECTORY, MAILBOX, Denied, TokenServer

__all__ = ["tokens"]

IDLE = "UPDATE oauth_connections SET access_token_expires_at = now() - interval '13 hours'"


def test_an_idle_connection_is_refreshed_once(tokens: ConnectionTokens, token_server: TokenServer) -> None:
    assert refresh_idle() == 0
    sql(IDLE)
    assert refresh_idle() == 1
    assert len(token_server.token_requests) == 1
    assert refresh_idle() == 0


def test_the_end_of_an_idle_connection_is_noticed(
    context: Flask, tokens: ConnectionTokens, token_server: TokenServer
) -> None:
    sql(IDLE)
    token_server.revoke()
    refresh_idle()
    assert connection().lapsed_at is not None
    status = mail_server_service.server_status(mail_server_service.get_server(tokens.owner))
    assert status.state == "rejected"
    assert "sign in again" in status.reason
    assert refresh_idle() == 0


def test_tenants_do_not_learn_whose_mail_server_they_share(
    context: Flask, acme: str, token_server: TokenServer
) -> None:
    assert isinstance(mail_server_service.save(None, entered(2525, auth_mode=AuthMode.OAUTH), shared=True), MailServer)
    oauth_service.register_app(None, EnteredApp(CLIENT_ID, DIRECTORY, CLIENT_SECRET))
    oauth_service.connect_signed_in(None, MICROSOFT, GrantedTokens("expired", 0, "refresh-token", MAILBOX))
    sql(IDLE)
    token_server.denial = Denied("invalid_client", "AADSTS7000222: The client secret has expired.")
    refresh_idle()
    tenant = tenant_service.find(acme)
    assert tenant is not None
    status = mail_server_service.tenant_status(tenant)
    assert (status.is_system, status.state) == (True, "rejected")
    assert status.reason == "The connection to the mailbox has ended: sign in again on the mail server page."
    own_page = oauth_service.status(mail_server_service.get_server(None))
    assert own_page is not None
    assert "The client secret has expired" in own_page.reason


@pytest.mark.parametrize("answer", [(503, b""), (200, b"nonsense")])
def test_a_token_server_that_fails_ends_no_connection(
    tokens: ConnectionTokens, token_server: TokenServer, answer: tuple[int, bytes]
) -> None:
    sql(IDLE)
    token_server.answer = answer
    assert refresh_idle() == 1
    assert connection().lapsed_at is None
    server = mail_server_service.get_server(tokens.owner)
    assert server is not None
    assert server.rejected_at is None
