"""The application's pool: its connections belong to one process and end with it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from flask import Flask

from portal.config import ROOT
from portal.mail_servers.smtp import client, pool
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender
from portal.mail_servers.smtp.outcome import ReplyKind
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer

SENDER, ANN = "pbx@portal.example", "ann@x.example"
TRANSACTION = ["MAIL", "RCPT", "DATA"]

ONE_MESSAGE = """
import sys
from types import SimpleNamespace
from flask import Flask
from portal.mail_servers.smtp import pool
from tests.mail_servers.smtp import test_application_pool

app = Flask("one message")
limits = {"concurrent_emails_per_server": 4, "concurrent_emails": 12}
network = {"host": "portal.example", "helo_name": "portal.example", "mail_ca_file": None, "smtp_allowed_networks": ()}
app.extensions["settings"] = SimpleNamespace(**limits, **network)
with app.app_context():
    pool.init_app(app, app.extensions["settings"])
    test_application_pool.send(int(sys.argv[1]))
"""


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return MimeMessage(
        MessageContent.of("Call lost", "Text\n", ""), Sender(SENDER), [ANN], message_id="<1@portal.example>", date=now
    )


def settings(port: int) -> SmtpSettings:
    return SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE).for_owner(None)


def send(port: int) -> ReplyKind:
    return pool.current().send(settings(port), message(), SENDER, [ANN])[ANN].kind


@pytest.fixture
def peer(built_app: Flask) -> Iterator[SmtpPeer]:
    with SmtpPeer() as peer, built_app.app_context():
        yield peer


def test_messages_share_a_pooled_connection_and_client_send_opens_its_own(peer: SmtpPeer) -> None:
    assert [send(peer.port), send(peer.port)] == [ReplyKind.ACCEPTED, ReplyKind.ACCEPTED]
    assert client.send(settings(peer.port), message(), SENDER, [ANN])[ANN].kind is ReplyKind.ACCEPTED
    pooled, own = peer.conversations
    assert pooled.verbs == ["EHLO", *TRANSACTION * 2]
    assert own.verbs == ["EHLO", *TRANSACTION, "QUIT"]
    assert pooled.commands[0].casefold() == own.commands[0].casefold() == "ehlo portal.test"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_does_not_use_its_parents_connections(peer: SmtpPeer) -> None:
    send(peer.port)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if send(peer.port) is ReplyKind.ACCEPTED else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert send(peer.port) is ReplyKind.ACCEPTED
    parent, forked = peer.conversations
    assert parent.verbs == ["EHLO", *TRANSACTION * 2]
    assert forked.verbs == ["EHLO", *TRANSACTION]


@pytest.mark.slow
def test_the_end_of_the_process_closes_the_connections(peer: SmtpPeer) -> None:
    subprocess.run([sys.executable, "-c", ONE_MESSAGE, str(peer.port)], cwd=ROOT, check=True, timeout=120)
    wait_for(lambda: peer.conversations[0].verbs[-1] == "QUIT")
    assert peer.conversations[0].verbs == ["EHLO", *TRANSACTION, "QUIT"]
