"""One mail to a scripted mail server, with and without commands that are said ahead."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import flask_mail
import pytest

from portal.mail_servers.composing import Sender, Words, compose
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SendResult, SmtpSettings
from portal.mail_servers.connection import send as send_mail
from portal.mail_servers.outcome import Outcome
from tests.smtp_peer import EXTENSIONS, LOCAL, Script, SmtpPeer

SENDER = "pbx@portal.example"
ANN, BOB, CYD = "ann@x.example", "bob@x.example", "cyd@x.example"
SHORT = Budget(connect=0.4, command=0.4, total=0.8, reply=0.4)
PASSWORD = "Pässwörd 密码"
USER = "jürgen@x.example"


@pytest.fixture(autouse=True, params=[(), ("PIPELINING",)], ids=["one_by_one", "ahead"])
def pipelining(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the mail servers take commands ahead: nothing that is tested here may depend on it."""
    monkeypatch.setattr(SmtpPeer, "offers", (*EXTENSIONS, *request.param))
    return bool(request.param)


def message(text: str = "A call was lost.\n.\n..two dots\n") -> flask_mail.Message:
    words = Words("A call was lost", text, "<p>A call was lost.</p>")
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return compose(words, Sender(SENDER, "PBX"), [ANN], message_id="<1@portal.example>", date=now)


def settings(peer: SmtpPeer, **changes: object) -> SmtpSettings:
    return replace(SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.NONE, reach=LOCAL), **changes)  # type: ignore[arg-type]


def signing_in(peer: SmtpPeer, mode: AuthMode = AuthMode.AUTO, **changes: object) -> SmtpSettings:
    return settings(peer, **{"auth_mode": mode, "username": USER, "password": PASSWORD, **changes})


def send(
    to: SmtpSettings, recipients: Sequence[str] = (ANN,), budget: Budget = SHORT, ca_file: Path | None = None
) -> SendResult:
    return send_mail(to, message(), SENDER, recipients, budget, ca_file=ca_file)


def outcome_of(script: Script, recipients: Sequence[str] = (ANN,)) -> Outcome:
    """Return the one outcome that all recipients have."""
    with SmtpPeer(script) as peer:
        outcomes = set(send(settings(peer), recipients).outcomes.values())
    (outcome,) = outcomes
    return outcome
