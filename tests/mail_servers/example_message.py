"""An example message, and sending it to a scripted mail server with and without pipelining."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.client import send as send_mail
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender
from portal.mail_servers.smtp.outcome import Pause, SmtpReply, Stage, pause_for
from portal.mail_servers.smtp.transport import SmtpTransport
from tests.smtp_peer import EXTENSIONS, LOCAL, Script, SmtpPeer

SENDER = "pbx@portal.example"
ANN, BOB, CYD = "ann@x.example", "bob@x.example", "cyd@x.example"
PATIENT = Timeouts(connect=60, command=60, total=60, reply=60)  # a busy machine is no fault of a mail server
SHORT = 0.4  # seconds: the limit on a step at which it does not reply
PASSWORD = "Pässwörd 密码"
USER = "jürgen@x.example"


@pytest.fixture(autouse=True, params=[(), ("PIPELINING",)], ids=["one_by_one", "pipelined"])
def pipelining(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the mail servers offer PIPELINING: every test has to pass with and without."""
    monkeypatch.setattr(SmtpPeer, "default_extensions", (*EXTENSIONS, *request.param))
    return bool(request.param)


@contextmanager
def short_at(stage: Stage) -> Iterator[Timeouts]:
    """Yield timeouts that are short for the commands of this stage, and long for everything else."""
    begin = SmtpTransport._begin_stage

    def begin_stage(transport: SmtpTransport, begun: Stage) -> None:
        begin(transport, begun)
        if begun is not stage:
            transport.deadline.start_step(PATIENT.command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmtpTransport, "_begin_stage", begin_stage)
        yield replace(PATIENT, command=SHORT)


def message(text: str = "A call was lost.\n.\n..two dots\n") -> MimeMessage:
    content = MessageContent.of("A call was lost", text, "<p>A call was lost.</p>")
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return MimeMessage(content, Sender(SENDER, "PBX"), [ANN], message_id="<1@portal.example>", date=now)


def settings(peer: SmtpPeer, **changes: object) -> SmtpSettings:
    return replace(SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL), **changes)  # type: ignore[arg-type]


def sign_in_settings(peer: SmtpPeer, mode: AuthMode = AuthMode.AUTO, **changes: object) -> SmtpSettings:
    return settings(peer, **{"auth_mode": mode, "username": USER, "password": PASSWORD, **changes})


def send(
    to: SmtpSettings,
    recipients: Sequence[str] = (ANN,),
    timeouts: Timeouts = PATIENT,
    ca_file: Path | None = None,
) -> dict[str, SmtpReply]:
    return send_mail(replace(to, ca_file=ca_file), message(), SENDER, recipients, timeouts)


def pause_after(replies: Mapping[str, SmtpReply]) -> Pause:
    """Return the pause of the mail server after these replies."""
    return max(map(pause_for, replies.values()))


def reply_to(script: Script, recipients: Sequence[str] = (ANN,), timeouts: Timeouts = PATIENT) -> SmtpReply:
    """Return the reply to a script, which is the same for all recipients."""
    with SmtpPeer(script) as peer:
        replies = set(send(settings(peer), recipients, timeouts).values())
    (reply,) = replies
    return reply
