"""A connected mailbox at a real mail server: Debian's Dovecot asks whether the token server's tokens are valid."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from flask import Flask

from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.identity_providers import GrantType
from portal.mail_servers.oauth.service import EnteredApp
from portal.mail_servers.smtp.client import AuthMode, Encryption, send
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpReply, Stage
from tests import dovecot
from tests.mail_servers.example_message import ANN, message, pause_after
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import entered
from tests.token_server import CLIENT_ID, CLIENT_SECRET, DIRECTORY, MAILBOX, MailboxesByToken, TokenServer

pytestmark = pytest.mark.slow


@pytest.fixture
def mail_server(
    context: Flask,
    oauth_tenant: int,
    token_server: TokenServer,
    certificate: trustme.LeafCert,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MailServer]:
    """Acme's mail server, connected without a person."""
    if problem := dovecot.missing():
        assert os.environ.get("CI") != "true", problem
        pytest.skip(problem)
    settings = context.extensions["settings"].model_copy(update={"mail_ca_file": ca_file})
    monkeypatch.setitem(context.extensions, "settings", settings)
    with SmtpPeer() as relay, dovecot.running(certificate, MailboxesByToken(token_server), relay.port) as server:
        saved = mail_server_service.save(
            oauth_tenant, entered(server.port, auth_mode=AuthMode.OAUTH, encryption=Encryption.STARTTLS)
        )
        assert isinstance(saved, MailServer)
        app = EnteredApp(CLIENT_ID, DIRECTORY, CLIENT_SECRET, mailbox=MAILBOX)
        connected = oauth_service.connect_without_person(oauth_tenant, GrantType.CLIENT_CREDENTIALS, app)
        assert isinstance(connected, oauth_service.MailboxStatus)
        yield saved


def reply_of(server: MailServer) -> tuple[SmtpReply, Pause]:
    result = send(server.smtp_settings, message(), MAILBOX, [ANN])
    return result[ANN], pause_after(result)


def test_tokens_of_the_token_server_sign_in(mail_server: MailServer, token_server: TokenServer) -> None:
    assert reply_of(mail_server)[0].kind is ReplyKind.ACCEPTED
    requests = len(token_server.token_requests)
    token_server.access_tokens.clear()  # Dovecot rejects the token that is kept
    assert reply_of(mail_server)[0].kind is ReplyKind.ACCEPTED
    assert len(token_server.token_requests) == requests + 1
    token_server.access_tokens.clear()
    token_server.secret = "another one"
    reply, pause = reply_of(mail_server)
    assert (reply.stage, reply.kind, pause) == (Stage.TOKEN, ReplyKind.SETTINGS, Pause.UNTIL_SAVED)
    assert "AADSTS7000215" in reply.text
    assert sql("SELECT lapsed_at IS NOT NULL FROM oauth_connections") == [(True,)]


def test_a_token_for_another_mailbox_does_not_sign_in(mail_server: MailServer, token_server: TokenServer) -> None:
    token_server.account = "other@acme.example"
    reply, _ = reply_of(mail_server)
    assert (reply.stage, reply.code) == (Stage.AUTH, 535)
