"""Connections that send nothing: kept alive, and their end is noticed."""

import pytest
from flask import Flask

from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth.access_tokens import ConnectionTokens
from portal.mail_servers.oauth.idle_connections import refresh_idle
from tests.mail_servers.oauth.test_access_tokens import connection, tokens
from tests.sql import sql
from tests.token_server import TokenServer

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
