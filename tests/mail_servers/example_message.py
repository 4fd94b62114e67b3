"""An example message, and sending it to a scripted mail server with and without pipelining."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portal.mail_servers.smtp.client import AuthMode, Encryption, SendResult, SmtpSettings, Timeouts
from portal.mail_servers.smtp.client import send as send_mail
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender
from portal.mail_servers.smtp.outcome import SmtpReply
from tests.smtp_peer import EXTENSIONS, LOCAL, Script, SmtpPeer

SENDER = "pbx@portal.example"
ANN, BOB, CYD = "ann@x.example", "bob@x.example", "cyd@x.example"
SHORT_TIMEOUTS = Timeouts(connect=0.4, command=0.4, total=0.8, reply=0.4)
PASSWORD = "Pässwörd 密码"
USER = "jürgen@x.example"


@pytest.fixture(autouse=True, params=[(), ("PIPELINING",)], ids=["one_by_one", "pipelined"])
def pipelining(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the mail servers offer PIPELINING: every test has to pass with and without."""
    monkeypatch.setattr(SmtpPeer, "default_extensions", (*EXTENSIONS, *request.param))
    return bool(request.param)


def message(text: str = "A call was lost.\n.\n..two dots\n") -> MimeMessage:
    content = MessageContent("A call was lost", text, "<p>A call was lost.</p>")
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return MimeMessage(content, Sender(SENDER, "PBX"), [ANN], message_id="<1@portal.example>", date=now)


def settings(peer: SmtpPeer, **changes: object) -> SmtpSettings:
    return replace(SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL), **changes)  # type: ignore[arg-type]


def sign_in_settings(peer: SmtpPeer, mode: AuthMode = AuthMode.AUTO, **changes: object) -> SmtpSettings:
    return settings(peer, **{"auth_mode": mode, "username": USER, "password": PASSWORD, **changes})


def send(
    to: SmtpSettings,
    recipients: Sequence[str] = (ANN,),
    timeouts: Timeouts = SHORT_TIMEOUTS,
    ca_file: Path | None = None,
) -> SendResult:
    return send_mail(replace(to, ca_file=ca_file), message(), SENDER, recipients, timeouts)


def reply_to(script: Script, recipients: Sequence[str] = (ANN,)) -> SmtpReply:
    """Return the reply to a script, which is the same for all recipients."""
    with SmtpPeer(script) as peer:
        replies = set(send(settings(peer), recipients).replies.values())
    (reply,) = replies
    return reply
