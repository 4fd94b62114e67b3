"""The sessions of a process: they are its own, and end with it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from flask import Flask

from portal.config import ROOT
from portal.mail_servers import sending
from portal.mail_servers.composing import MimeMessage, Sender, Words, compose
from portal.mail_servers.connection import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.outcome import Kind
from tests.smtp_peer import LOCAL, SmtpPeer

SENDER, ANN = "pbx@portal.example", "ann@x.example"
A_MAIL = ["MAIL", "RCPT", "DATA"]

ONE_MAIL = """
import sys
from types import SimpleNamespace
from flask import Flask
from portal.mail_servers import sending
from tests.mail_servers import test_sending

app = Flask("one mail")
limits = {"mail_sessions": 4, "mails_at_once": 12}
app.extensions["settings"] = SimpleNamespace(**limits, host="portal.example", mail_ca_file=None)
with app.app_context():
    sending.init_app(app, app.extensions["settings"])
    test_sending.post(int(sys.argv[1]))
"""


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return compose(Words("Call lost", "Text\n", ""), Sender(SENDER), [ANN], message_id="<1@portal.example>", date=now)


def post(port: int) -> Kind:
    settings = SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, reach=LOCAL)
    return sending.submit(settings, message(), SENDER, [ANN]).outcomes[ANN].kind


@pytest.fixture
def peer(built_app: Flask) -> Iterator[SmtpPeer]:
    with SmtpPeer() as peer, built_app.app_context():
        yield peer


def test_mails_share_a_session_and_what_is_sent_apart_has_its_own(peer: SmtpPeer) -> None:
    settings = SmtpSettings("127.0.0.1", peer.port, Encryption.NONE, AuthMode.NONE, reach=LOCAL)
    assert [post(peer.port), post(peer.port)] == [Kind.SENT, Kind.SENT]
    assert sending.submit_apart(settings, message(), SENDER, [ANN]).outcomes[ANN].kind is Kind.SENT
    kept, apart = peer.conversations
    assert kept.verbs == ["EHLO", *A_MAIL * 2]
    assert apart.verbs == ["EHLO", *A_MAIL, "QUIT"]
    assert kept.commands[0].casefold() == apart.commands[0].casefold() == "ehlo portal.test"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_leaves_the_sessions_of_its_parent_alone(peer: SmtpPeer) -> None:
    post(peer.port)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if post(peer.port) is Kind.SENT else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert post(peer.port) is Kind.SENT
    parents, childs = peer.conversations
    assert parents.verbs == ["EHLO", *A_MAIL * 2]
    assert childs.verbs == ["EHLO", *A_MAIL]


def test_the_end_of_the_process_takes_leave_of_the_mail_server(peer: SmtpPeer) -> None:
    subprocess.run([sys.executable, "-c", ONE_MAIL, str(peer.port)], cwd=ROOT, check=True, timeout=30)
    end = time.monotonic() + 3
    while peer.conversations[0].verbs[-1] != "QUIT" and time.monotonic() < end:
        time.sleep(0.005)
    assert peer.conversations[0].verbs == ["EHLO", *A_MAIL, "QUIT"]
