"""Every stage of a session with every action of the mail server: the reply, and the time it takes.

From MAIL on, each is tried on a new and on a kept connection, with and without PIPELINING (RFC 2920), with the same
result.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from portal.mail_servers.smtp import session
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings, send
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpReply, Stage
from portal.mail_servers.smtp.pool import Pool, PoolLimits
from tests.mail_servers.example_message import PATIENT, SHORT, pause_after, short_at
from tests.smtp_peer import EXTENSIONS, LOCAL, Action, Fault, SlowReply, SmtpPeer

pytestmark = pytest.mark.slow

SENDER = "pbx@portal.example"
RECIPIENTS = ["ann@x.example", "bob@x.example"]

STAGES = {
    "greeting": (Stage.GREETING, ReplyKind.SETTINGS, "220 peer.test"),
    "tls": (Stage.TLS, ReplyKind.SETTINGS, None),
    "ehlo": (Stage.EHLO, ReplyKind.SETTINGS, "250 peer.test"),
    "starttls": (Stage.TLS, ReplyKind.SETTINGS, "220 go ahead"),
    "auth": (Stage.AUTH, ReplyKind.SETTINGS, "235 2.7.0 welcome"),
    "mail": (Stage.MAIL, ReplyKind.SETTINGS, "250 2.1.0 ok"),
    "rcpt": (Stage.RCPT, ReplyKind.REJECTED, "251 2.1.5 forwarded"),
    "data": (Stage.DATA, ReplyKind.REJECTED, "250 2.0.0 fine"),  # 354 would be right
    "dot": (Stage.DATA, ReplyKind.REJECTED, "250 2.0.0 queued"),
}
FAULTS: dict[str, Action] = {
    "4yz": "451-4.3.0 because\n451 4.3.0 of that",
    "5yz": "554-5.3.0 because\n554 5.3.0 of that",
    "421": "421-4.3.0 because\n421 4.3.0 of that",
    "silence": Fault.SILENCE,
    "drop": Fault.DROP,
    "reset": Fault.RESET,
    "garbage": Fault.GARBAGE,
    "unknown_code": "999 what",
    "byte_by_byte": SlowReply("250 slow", 0.1),
}
ACTIONS = ["2yz", *FAULTS]
BEFORE_MAIL = ["greeting", "tls", "ehlo", "starttls", "auth"]
NOT_TRIED = [("tls", "2yz"), ("greeting", "reset")]  # TLS has no reply; the reset may come while still connecting
TRANSACTION = ["mail", "rcpt", "data", "dot"]
Send = Callable[..., dict[str, SmtpReply]]
ACCEPTED = SmtpReply(ReplyKind.ACCEPTED, Stage.DATA, 250, "2.0.0", "queued as 4711")


def action_of(step: str, action: str) -> Action:
    return FAULTS[action] if action in FAULTS else STAGES[step][2] or ""


def expected(step: str, action: str) -> tuple[ReplyKind, Stage, int | None, Pause]:
    """Return what the table of docs/reference/delivery.md says."""
    stage, refused, _ = STAGES[step]
    if action == "2yz" and step != "data":
        return ReplyKind.ACCEPTED, Stage.DATA, 250, Pause.NONE
    if step == "tls" and action in ("4yz", "5yz", "421", "garbage", "unknown_code"):
        return ReplyKind.SETTINGS, stage, None, Pause.NONE  # any unencrypted reply is not TLS
    if action == "4yz":
        return ReplyKind.TEMPORARY, stage, 451, Pause.BRIEF if step in BEFORE_MAIL else Pause.NONE
    if action == "5yz":
        return refused, stage, 554, Pause.UNTIL_SAVED if step == "auth" else Pause.NONE
    if action == "421":
        return ReplyKind.TEMPORARY, stage, 421, Pause.BRIEF
    return ReplyKind.UNKNOWN if step == "dot" else ReplyKind.TEMPORARY, stage, None, Pause.BRIEF


@contextmanager
def in_time(step: str, action: str) -> Iterator[Timeouts]:
    """Yield timeouts of which only that of the step is short, if it is of use there: waiting longer fails."""
    began = time.monotonic()
    with short_at(STAGES[step][0]) as short:
        if action not in ("silence", "byte_by_byte"):
            yield PATIENT
        else:
            yield replace(PATIENT, reply=SHORT) if step == "dot" else short
    assert time.monotonic() - began < PATIENT.command / 2


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return MimeMessage(
        MessageContent.of("Call lost", "Text\n", ""),
        Sender(SENDER),
        RECIPIENTS,
        message_id="<1@portal.example>",
        date=now,
    )


def settings(peer: SmtpPeer, step: str) -> SmtpSettings:
    encryption = Encryption.STARTTLS if step in ("tls", "starttls") else Encryption.NONE
    auth_mode = AuthMode.PLAIN if step == "auth" else AuthMode.NONE
    return SmtpSettings(peer.host, peer.port, encryption, auth_mode, "user", "password", network_policy=LOCAL)


def check(result: dict[str, SmtpReply], step: str, action: str) -> None:
    assert list(result) == RECIPIENTS
    (reply,) = set(result.values())
    assert (reply.kind, reply.stage, reply.code, pause_after(result)) == expected(step, action)
    if reply.code and step == "greeting" and reply.kind is not ReplyKind.ACCEPTED:
        assert (reply.text, reply.enhanced_code) == ("The mail server rejected the connection.", None)
    elif reply.code in (421, 451, 554):
        assert (reply.text, reply.enhanced_code) == ("because of that", f"{reply.code // 100}.3.0")
    assert "secret" not in reply.text


@pytest.fixture(params=["one_by_one", "pipelined"])
def peer(request: pytest.FixtureRequest) -> Iterator[SmtpPeer]:
    """A mail server without PIPELINING, and one with it."""
    more = ["PIPELINING"] if request.param == "pipelined" else []
    with SmtpPeer(extensions=[*EXTENSIONS, *more]) as peer:
        yield peer


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(PoolLimits(), ConcurrencyLimits())
    yield pool
    pool.close()


@pytest.fixture
def send_pooled(peer: SmtpPeer, pool: Pool) -> Send:
    """A function that sends a message through the peer, over a kept connection if there is one."""
    return lambda limits=PATIENT: pool.send(settings(peer, "mail"), message(), SENDER, RECIPIENTS, limits)


@pytest.mark.parametrize(
    ("step", "action"),
    [(step, action) for step in BEFORE_MAIL for action in ACTIONS if (step, action) not in NOT_TRIED],
)
def test_before_the_transaction(step: str, action: str, certificate: trustme.LeafCert, ca_file: Path) -> None:
    tls = certificate if step in ("tls", "starttls") else None
    script, accounts = {step: action_of(step, action)}, {"user": "password"}
    with SmtpPeer(script, certificate=tls, accounts=accounts) as peer, in_time(step, action) as timeouts:
        result = send(replace(settings(peer, step), ca_file=ca_file), message(), SENDER, RECIPIENTS, timeouts)
    check(result, step, action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("step", TRANSACTION)
def test_a_transaction_on_a_new_connection(peer: SmtpPeer, send_pooled: Send, step: str, action: str) -> None:
    peer.script = {step: action_of(step, action)}
    with in_time(step, action) as timeouts:
        check(send_pooled(timeouts), step, action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("step", TRANSACTION)
def test_a_transaction_on_a_kept_connection(peer: SmtpPeer, send_pooled: Send, step: str, action: str) -> None:
    send_pooled()
    peer.script = {step: action_of(step, action)}
    with in_time(step, action) as timeouts:
        check(send_pooled(timeouts), step, action)
    session_ended = action not in ("2yz", "4yz", "5yz") or (step, action) == ("data", "2yz")
    tried_again = action == "421" if step == "dot" else session_ended or (step == "mail" and action != "2yz")
    assert len(peer.conversations) == 1 + tried_again
    accepted_without_reply = (step, action) == ("dot", "byte_by_byte")
    assert len(peer.messages) == 1 + (accepted_without_reply or expected(step, action)[0] is ReplyKind.ACCEPTED)


@pytest.mark.parametrize("action", FAULTS)
def test_a_kept_connection_that_fails_at_mail_only(peer: SmtpPeer, send_pooled: Send, action: str) -> None:
    peer.script = {"mail": ["250 ok", FAULTS[action]]}
    send_pooled()
    with in_time("mail", action) as timeouts:
        assert send_pooled(timeouts) == dict.fromkeys(RECIPIENTS, ACCEPTED)
    assert [len(conversation.messages) for conversation in peer.conversations] == [1, 1]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_reset_on_a_kept_connection(peer: SmtpPeer, send_pooled: Send, action: str) -> None:
    peer.script = {"data": "451 4.3.0 not now"}
    send_pooled()
    peer.script = {"rset": FAULTS.get(action, "250 2.0.0 forgotten")}
    with in_time("mail", action) as timeouts:
        assert send_pooled(timeouts) == dict.fromkeys(RECIPIENTS, ACCEPTED)
    assert len(peer.conversations) == (1 if action == "2yz" else 2)
    assert [mail.recipients for mail in peer.messages] == [RECIPIENTS]


@pytest.mark.parametrize("action", ACTIONS)
def test_the_message_is_accepted_whatever_the_reply_to_quit(
    peer: SmtpPeer, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.script = {"quit": FAULTS.get(action, "221 2.0.0 bye")}
    monkeypatch.setattr(session, "LAST_REPLIES_TIMEOUT", SHORT)
    began = time.monotonic()
    result = send(settings(peer, "quit"), message(), SENDER, RECIPIENTS, PATIENT)
    assert time.monotonic() - began < PATIENT.command / 2
    assert result == dict.fromkeys(RECIPIENTS, ACCEPTED)


@pytest.mark.parametrize("action", ACTIONS)
def test_no_reply_to_quit_delays_the_end_of_the_process(
    peer: SmtpPeer, send_pooled: Send, pool: Pool, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LAST_REPLIES_TIMEOUT", PATIENT.command)
    peer.script = {"quit": FAULTS.get(action, "221 2.0.0 bye")}
    send_pooled()
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < PATIENT.command / 2
