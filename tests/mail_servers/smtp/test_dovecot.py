"""Sign-in with access tokens at a real mail server: Debian's Dovecot, which asks whether a token is valid.

As root: `apt-get install dovecot-core dovecot-submissiond`, then `pytest tests/mail_servers/smtp/test_dovecot.py`.
Without Dovecot these tests are skipped with the reason; with CI=true they fail.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings, send
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpReply, Stage, advice_for
from tests import dovecot as dovecot_server
from tests.dovecot import Dovecot
from tests.mail_servers.example_message import ANN, message, pause_after
from tests.mail_servers.smtp.test_token_sign_in import MAILBOX, STALE, TOKEN, WRONG, Tokens
from tests.processes import wait_for
from tests.smtp_peer import LOCAL, SmtpPeer

pytestmark = pytest.mark.slow

BOBS_TOKEN = "bob." + TOKEN


@dataclass(frozen=True)
class Server:
    """Dovecot with one of the mechanisms, and the mail server that it passes messages on to."""

    mechanism: str
    dovecot: Dovecot
    relay: SmtpPeer


@pytest.fixture(scope="module", params=["XOAUTH2", "OAUTHBEARER"])
def server(request: pytest.FixtureRequest, certificate: trustme.LeafCert) -> Iterator[Server]:
    problem = dovecot_server.missing()
    if problem:
        assert os.environ.get("CI") != "true", problem
        pytest.skip(problem)
    mailboxes = {TOKEN: MAILBOX, BOBS_TOKEN: "bob@acme.example"}
    with SmtpPeer() as relay, dovecot_server.running(certificate, mailboxes, relay.port, request.param) as dovecot:
        yield Server(request.param, dovecot, relay)


def send_with(server: Server, ca_file: Path, *tokens: str) -> dict[str, SmtpReply]:
    settings = SmtpSettings(
        "127.0.0.1",
        server.dovecot.port,
        Encryption.STARTTLS,
        AuthMode.OAUTH,
        MAILBOX,
        token_source=Tokens(list(tokens)),
        network_policy=LOCAL,
        ca_file=ca_file,
    )
    return send(settings, message(), MAILBOX, [ANN])


def test_a_valid_token_sends_a_message(server: Server, ca_file: Path) -> None:
    before = len(server.relay.messages)
    reply = send_with(server, ca_file, TOKEN)[ANN]
    assert (reply.kind, reply.code, reply.text) == (ReplyKind.ACCEPTED, 250, "queued as 4711")
    (received,) = server.relay.messages[before:]
    assert (received.sender, received.recipients) == (MAILBOX, [ANN])
    assert b"A call was lost" in received.content
    wait_for(lambda: f"method={server.mechanism}" in server.dovecot.log)


@pytest.mark.parametrize("rejected", [STALE, "short"])
def test_an_expired_token_is_renewed(server: Server, ca_file: Path, rejected: str) -> None:
    assert send_with(server, ca_file, rejected, TOKEN)[ANN].kind is ReplyKind.ACCEPTED


@pytest.mark.parametrize("token", [WRONG, BOBS_TOKEN], ids=["invalid", "of another mailbox"])
def test_a_token_that_does_not_fit_is_rejected_with_the_reason(server: Server, ca_file: Path, token: str) -> None:
    before = len(server.relay.messages)
    result = send_with(server, ca_file, STALE, token)
    reply = result[ANN]
    assert (reply.kind, reply.stage, reply.code, reply.enhanced_code) == (
        ReplyKind.SETTINGS,
        Stage.AUTH,
        535,
        "5.7.8",
    )
    error = {"XOAUTH2": "status 401, schemes bearer, scope mail", "OAUTHBEARER": "status invalid_token"}
    assert reply.text == f"Authentication failed. ({server.mechanism}: {error[server.mechanism]})"
    assert "access token" in advice_for(reply)
    assert pause_after(result) is Pause.UNTIL_SAVED
    assert len(server.relay.messages) == before
