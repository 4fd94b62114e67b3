"""Every stage of a conversation, and everything that a mail server may do there: what the mail comes to, and when.

From MAIL on each is played on a new session and on a kept one, and by servers that take commands ahead (RFC 2920) and
that do not: the outcome is the same.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from portal.mail_servers.composing import MimeMessage, Sender, Words, compose
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SendResult, SmtpSettings, send
from portal.mail_servers.outcome import Kind, Outcome, Pause, Stage
from portal.mail_servers.places import PlaceLimits
from portal.mail_servers.pool import Limits, Pool
from tests.smtp_peer import EXTENSIONS, LOCAL, Act, Move, Slowly, SmtpPeer

SENDER = "pbx@portal.example"
PEOPLE = ["ann@x.example", "bob@x.example"]
# Seconds. A kept session's silence leaves time for a new one. Where nobody waits, nothing hangs on a fast machine.
SHORT = Budget(connect=0.4, command=0.4, total=0.8, reply=0.4)
LONG = Budget(connect=3, command=3, total=3, reply=3)
SLACK = 0.5  # seconds, for a busy machine

STAGES = {
    "greeting": (Stage.GREETING, Kind.SETTINGS, "220 peer.test"),
    "tls": (Stage.TLS, Kind.SETTINGS, None),
    "ehlo": (Stage.EHLO, Kind.SETTINGS, "250 peer.test"),
    "starttls": (Stage.TLS, Kind.SETTINGS, "220 go ahead"),
    "auth": (Stage.AUTH, Kind.SETTINGS, "235 2.7.0 welcome"),
    "mail": (Stage.MAIL, Kind.SETTINGS, "250 2.1.0 ok"),
    "rcpt": (Stage.RCPT, Kind.REFUSED, "251 2.1.5 forwarded"),
    "data": (Stage.DATA, Kind.REFUSED, "250 2.0.0 fine"),  # 354 would be right
    "dot": (Stage.DATA, Kind.REFUSED, "250 2.0.0 queued"),
}
FAULTS: dict[str, Move] = {
    "4yz": "451-4.3.0 because\n451 4.3.0 of that",
    "5yz": "554-5.3.0 because\n554 5.3.0 of that",
    "421": "421-4.3.0 because\n421 4.3.0 of that",
    "silence": Act.SILENCE,
    "drop": Act.DROP,
    "reset": Act.RESET,
    "garbage": Act.GARBAGE,
    "unknown_code": "999 what",
    "byte_by_byte": Slowly("250 slow", 0.1),
}
MOVES = ["2yz", *FAULTS]
BEFORE_MAIL = ["greeting", "tls", "ehlo", "starttls", "auth"]
NOT_PLAYED = [("tls", "2yz"), ("greeting", "reset")]  # TLS knows no reply; the reset may come while we still connect
OF_A_MAIL = ["mail", "rcpt", "data", "dot"]
Post = Callable[..., SendResult]
SENT = Outcome(Kind.SENT, Stage.DATA, 250, "2.0.0", "queued as 4711")


def move_of(step: str, move: str) -> Move:
    return FAULTS[move] if move in FAULTS else STAGES[step][2] or ""


def expected(step: str, move: str) -> tuple[Kind, Stage, int | None, Pause]:
    """Return what the table of docs/delivery.md says."""
    stage, refused, _ = STAGES[step]
    if move == "2yz" and step != "data":
        return Kind.SENT, Stage.DATA, 250, Pause.NONE
    if step == "tls" and move in ("4yz", "5yz", "421", "garbage", "unknown_code"):
        return Kind.SETTINGS, stage, None, Pause.NONE  # whatever is said in clear, it is no TLS
    if move == "4yz":
        return Kind.TEMPORARY, stage, 451, Pause.BRIEF if step in BEFORE_MAIL else Pause.NONE
    if move == "5yz":
        return refused, stage, 554, Pause.UNTIL_SAVED if step == "auth" else Pause.NONE
    if move == "421":
        return Kind.TEMPORARY, stage, 421, Pause.BRIEF
    return Kind.UNKNOWN if step == "dot" else Kind.TEMPORARY, stage, None, Pause.BRIEF


def budget(move: str) -> Budget:
    return SHORT if move in ("silence", "byte_by_byte") else LONG


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return compose(Words("Call lost", "Text\n", ""), Sender(SENDER), PEOPLE, message_id="<1@portal.example>", date=now)


def settings(peer: SmtpPeer, step: str) -> SmtpSettings:
    encryption = Encryption.STARTTLS if step in ("tls", "starttls") else Encryption.NONE
    auth_mode = AuthMode.PLAIN if step == "auth" else AuthMode.NONE
    return SmtpSettings(peer.host, peer.port, encryption, auth_mode, "user", "password", reach=LOCAL)


def check(result: SendResult, step: str, move: str) -> None:
    assert list(result.outcomes) == PEOPLE
    (outcome,) = set(result.outcomes.values())
    assert (outcome.kind, outcome.stage, outcome.code, result.pause) == expected(step, move)
    if outcome.code and step == "greeting" and outcome.kind is not Kind.SENT:
        assert (outcome.text, outcome.enhanced_code) == ("The mail server turned the portal away.", None)
    elif outcome.code in (421, 451, 554):
        assert (outcome.text, outcome.enhanced_code) == ("because of that", f"{outcome.code // 100}.3.0")
    assert "secret" not in outcome.text


@contextmanager
def in_time(step: str = "") -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SHORT.total + (SHORT.reply if step == "dot" else 0) + SLACK


@pytest.fixture(params=["one_by_one", "ahead"])
def peer(request: pytest.FixtureRequest) -> Iterator[SmtpPeer]:
    """A mail server that takes commands one by one, and one that takes them ahead."""
    more = ["PIPELINING"] if request.param == "ahead" else []
    with SmtpPeer(extensions=[*EXTENSIONS, *more]) as peer:
        yield peer


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(Limits(), PlaceLimits())
    yield pool
    pool.close()


@pytest.fixture
def post(peer: SmtpPeer, pool: Pool) -> Post:
    """A function that sends a mail through the peer, over a kept session where there is one."""
    return lambda budget=LONG: pool.send(settings(peer, "mail"), message(), SENDER, PEOPLE, budget)


@pytest.mark.parametrize(
    ("step", "move"), [(step, move) for step in BEFORE_MAIL for move in MOVES if (step, move) not in NOT_PLAYED]
)
def test_before_the_mail(step: str, move: str, certificate: trustme.LeafCert, ca_file: Path) -> None:
    tls = certificate if step in ("tls", "starttls") else None
    with SmtpPeer({step: move_of(step, move)}, certificate=tls, accounts={"user": "password"}) as peer, in_time():
        result = send(settings(peer, step), message(), SENDER, PEOPLE, budget(move), ca_file=ca_file)
    check(result, step, move)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("step", OF_A_MAIL)
def test_a_mail_on_a_new_session(peer: SmtpPeer, post: Post, step: str, move: str) -> None:
    peer.script = {step: move_of(step, move)}
    with in_time(step):
        check(post(budget(move)), step, move)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("step", OF_A_MAIL)
def test_a_mail_on_a_kept_session(peer: SmtpPeer, post: Post, step: str, move: str) -> None:
    post()
    peer.script = {step: move_of(step, move)}
    with in_time(step):
        check(post(budget(move)), step, move)
    asked_again = step == "mail" and move != "2yz"
    assert len(peer.conversations) == 1 + asked_again
    accepted_unheard = (step, move) == ("dot", "byte_by_byte")
    assert len(peer.mails) == 1 + (accepted_unheard or expected(step, move)[0] is Kind.SENT)


@pytest.mark.parametrize("move", FAULTS)
def test_a_kept_session_that_fails_at_mail_alone(peer: SmtpPeer, post: Post, move: str) -> None:
    peer.script = {"mail": ["250 ok", FAULTS[move]]}
    post()
    with in_time():
        assert post(budget(move)) == SendResult(dict.fromkeys(PEOPLE, SENT), Pause.NONE)
    assert [len(conversation.mails) for conversation in peer.conversations] == [1, 1]


@pytest.mark.parametrize("move", MOVES)
def test_a_kept_session_that_is_to_forget_a_mail(peer: SmtpPeer, post: Post, move: str) -> None:
    peer.script = {"data": "451 4.3.0 not now"}
    post()
    peer.script = {"rset": FAULTS.get(move, "250 2.0.0 forgotten")}
    with in_time():
        assert post(budget(move)) == SendResult(dict.fromkeys(PEOPLE, SENT), Pause.NONE)
    assert len(peer.conversations) == (1 if move == "2yz" else 2)
    assert [mail.recipients for mail in peer.mails] == [PEOPLE]


@pytest.mark.parametrize("move", MOVES)
def test_whatever_comes_of_quit_the_mail_is_sent(peer: SmtpPeer, move: str) -> None:
    peer.script = {"quit": FAULTS.get(move, "221 2.0.0 bye")}
    with in_time():
        result = send(settings(peer, "quit"), message(), SENDER, PEOPLE, budget(move))
    assert result == SendResult(dict.fromkeys(PEOPLE, SENT), Pause.NONE)


@pytest.mark.parametrize("move", MOVES)
def test_nothing_that_comes_of_quit_keeps_the_process_from_ending(
    peer: SmtpPeer, post: Post, pool: Pool, move: str
) -> None:
    peer.script = {"quit": FAULTS.get(move, "221 2.0.0 bye")}
    post()
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < SHORT.command
