"""Mail servers as they are: old ones, strict ones, slow ones, ones that count, and hostile ones."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trustme

from portal.mail_servers.smtp import concurrency
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.connect import MAX_CONCURRENT_LOOKUPS, MAX_LOOKUPS_PER_OWNER, Deadline
from portal.mail_servers.smtp.outcome import BUSY, Pause, ReplyKind, Stage, advice_for
from portal.mail_servers.smtp.pool import Pool, PoolLimits
from tests.later_clock import LaterClock
from tests.mail_servers.example_message import (
    ANN,
    BOB,
    PASSWORD,
    PATIENT,
    SENDER,
    USER,
    message,
    pause_after,
    pipelining,
    send,
    settings,
    sign_in_settings,
)
from tests.processes import wait_for
from tests.smtp_peer import EXTENSIONS, Action, Fault, Script, SmtpPeer

__all__ = ["pipelining"]


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(PoolLimits(), ConcurrencyLimits())
    yield pool
    pool.close()


# EHLO and HELO


@pytest.mark.parametrize("reply", ["500 5.5.1 command unrecognized", "502 5.5.1 not implemented"])
@pytest.mark.parametrize("encryption", [Encryption.NONE, Encryption.TLS])
def test_an_old_server_is_greeted_with_helo(
    reply: str, encryption: Encryption, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    tls = encryption is Encryption.TLS
    with SmtpPeer({"ehlo": reply}, certificate=certificate if tls else None, implicit_tls=tls) as peer:
        result = send(settings(peer, encryption=encryption, helo_name="portal.example"), ca_file=ca_file)
    assert result[ANN].kind is ReplyKind.ACCEPTED
    assert peer.conversations[0].verbs == ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "QUIT"]
    assert peer.conversations[0].commands[1] == "HELO portal.example"


@pytest.mark.parametrize("changes", [{"encryption": Encryption.STARTTLS}, {"auth_mode": AuthMode.AUTO}])
def test_helo_is_not_enough_for_encryption_or_sign_in(changes: dict[str, Any]) -> None:
    with SmtpPeer({"ehlo": "502 5.5.1 not implemented"}) as peer:
        reply = send(sign_in_settings(peer, **{"auth_mode": AuthMode.NONE, **changes}))[ANN]
    assert (reply.kind, reply.stage, reply.code) == (ReplyKind.SETTINGS, Stage.EHLO, 502)
    assert "without encryption and sign-in" in advice_for(reply)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


@pytest.mark.parametrize("script", [{"ehlo": "550 no"}, {"ehlo": "502 no", "helo": "550 no"}])
def test_a_server_that_rejects_the_greeting_is_a_settings_failure(script: Script) -> None:
    with SmtpPeer(script) as peer:
        reply = send(settings(peer))[ANN]
    assert (reply.kind, reply.stage, reply.code) == (ReplyKind.SETTINGS, Stage.EHLO, 550)


# Limits of a session


class CountingPeer(SmtpPeer):
    """A mail server that accepts so many messages per session, and then replies with the limit at a step."""

    def __init__(self, step: str, limit: Action, accepted: int) -> None:
        normal = {"mail": "250 ok", "rcpt": "250 ok", "data": "354 go ahead", "dot": "250 queued"}[step]
        super().__init__({step: [*[normal] * accepted, limit]}, extensions=EXTENSIONS)


LIMITS = [
    "452 4.4.5 Maximum number of messages per session exceeded.",
    "421 Maximum message count per session reached",
    "421 #4.x.2 Too many messages for this session",
    "450 too many messages in this connection",
    "554 5.7.1 Too many mails per session",
]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
def test_a_limit_of_a_session_delays_no_message(pool: Pool, step: str, limit: str) -> None:
    with CountingPeer(step, limit, accepted=3) as peer:
        for _ in range(10):
            result = pool.send(settings(peer), message(), SENDER, [ANN], PATIENT)
            assert (result[ANN].kind, pause_after(result)) == (ReplyKind.ACCEPTED, Pause.NONE), result
        pool.close()
    assert len(peer.messages) == 10
    assert len(peer.conversations) == 4


def test_a_server_that_always_names_a_limit_is_asked_twice_at_most(pool: Pool) -> None:
    with SmtpPeer({"data": ["354 go ahead", LIMITS[0]]}) as peer:
        pool.send(settings(peer), message(), SENDER, [ANN], PATIENT)
        peer.script = {"data": LIMITS[0]}
        result = pool.send(settings(peer), message(), SENDER, [ANN], PATIENT)
        assert result[ANN].kind is ReplyKind.TEMPORARY
        assert [conversation.verbs.count("DATA") for conversation in peer.conversations] == [2, 1]
        pool.send(settings(peer), message(), SENDER, [ANN], PATIENT)
    assert [conversation.verbs.count("DATA") for conversation in peer.conversations] == [2, 1, 1], "none was kept"


def test_a_message_that_some_recipients_got_is_not_sent_again(pool: Pool) -> None:
    with SmtpPeer({"rcpt": ["250 ok", "250 ok", LIMITS[0]]}) as peer:
        pool.send(settings(peer), message(), SENDER, [ANN], PATIENT)
        replies = pool.send(settings(peer), message(), SENDER, [ANN, BOB], PATIENT)
    assert [replies[ANN].kind, replies[BOB].kind] == [ReplyKind.ACCEPTED, ReplyKind.TEMPORARY]
    assert len(peer.conversations) == 1


# Sign-in methods


@pytest.mark.parametrize(
    ("mechanisms", "part"),
    [
        ("NTLM", "supports none of these sign-in methods"),
        ("GSSAPI NTLM", "supports none of these sign-in methods"),
        ("XOAUTH2", "OAuth 2.0"),
        ("NTLM XOAUTH2 OAUTHBEARER", "OAuth 2.0"),
        ("SCRAM-SHA-1 SCRAM-SHA-256", "supports none of these sign-in methods"),
    ],
)
def test_auto_where_nothing_usable_is_offered(mechanisms: str, part: str) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms=mechanisms) as peer:
        reply = send(sign_in_settings(peer))[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.AUTH)
    assert reply.text == f"The mail server offers only {', '.join(mechanisms.split())}."
    assert part in advice_for(reply)
    assert "Auto" not in advice_for(reply)


# STARTTLS


@pytest.mark.parametrize("injected", ["250 ok", "220 again", "250-evil\n250 AUTH PLAIN"])
def test_what_is_injected_after_starttls_is_never_read(
    injected: str, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    script = {"starttls": f"220 2.0.0 go ahead\n{injected}"}
    with SmtpPeer(script, certificate=certificate, accounts={USER: PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file)[ANN]
    assert (reply.kind, reply.stage, reply.code) == (ReplyKind.SETTINGS, Stage.TLS, None)
    assert peer.conversations[0].verbs == ["EHLO", "STARTTLS"]


def test_what_is_injected_later_is_not_tls(certificate: trustme.LeafCert, ca_file: Path) -> None:
    with SmtpPeer({"tls": "250 AUTH PLAIN"}, certificate=certificate, accounts={USER: PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file)[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.TLS)
    assert peer.conversations[0].verbs == ["EHLO", "STARTTLS"]


# Hostile replies


@pytest.mark.parametrize("line", ["", " " * 4, "\t", "5.1.1 ", "x" * 400])
@pytest.mark.parametrize("step", ["greeting", "ehlo", "mail", "rcpt", "data", "dot"])
def test_a_reply_of_16000_lines_takes_no_time(step: str, line: str) -> None:
    code = {"greeting": 220, "ehlo": 250}.get(step, 550)
    with SmtpPeer({step: f"{code}-{line}\n" * 16_000 + f"{code} end"}) as peer:
        began = time.thread_time()
        reply = send(settings(peer), timeouts=PATIENT)[ANN]
        assert time.thread_time() - began < 1
    assert (reply.code, reply.text) == (None, "The reply is not SMTP.")


def test_a_long_reply_that_servers_do_send_is_read() -> None:
    features = "".join(f"250-X-FEATURE-{number} {'x' * 60}\n" for number in range(60))
    with SmtpPeer({"ehlo": f"250-peer.test\n{features}250 SIZE 1"}) as peer:
        assert send(settings(peer))[ANN].kind is ReplyKind.ACCEPTED


# Owners


@pytest.mark.slow
def test_saving_other_settings_again_and_again_gets_no_more_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each save gives other settings, and the mail server hangs: the others must not be busy."""
    clock, pool = LaterClock(), Pool(PoolLimits(), ConcurrencyLimits(slow_after=600))
    monkeypatch.setattr(concurrency, "time", clock)
    with ThreadPoolExecutor(12) as threads, SmtpPeer({"greeting": Fault.SILENCE}) as hanging, SmtpPeer() as healthy:
        versions = [settings(hanging, owner=1, username=f"version {number}") for number in range(12)]
        sent = [threads.submit(pool.send, saved, message(), SENDER, [ANN], PATIENT) for saved in versions]
        wait_for(lambda: sum(each.done() for each in sent) == len(sent) - pool.slots.limits.per_server)
        with ExitStack() as held:
            free = [held.enter_context(pool.slots.acquire(2)) for _ in range(4)]
        assert free == [True] * 4
        reply = pool.send(settings(healthy, owner=2), message(), SENDER, [ANN], PATIENT)[ANN]
        assert reply.kind is ReplyKind.ACCEPTED
        clock.later += 2 * pool.slots.limits.slow_after
    pool.close()
    with ExitStack() as held:
        free = [held.enter_context(pool.slots.acquire(1)) for _ in range(4)]
    assert free == [True, True, False, False], "it is still slow, whatever was saved"


class SilentNames:
    """A resolver that gives no answer about the names of one domain until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.released, real = 0, Event(), socket.getaddrinfo

        def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
            if not host.endswith(".silent.example"):
                return real(host, *args, **options)
            if not options.get("flags"):
                self.asked += 1
                self.released.wait(60)
            raise socket.gaierror(socket.EAI_NONAME if options.get("flags") else socket.EAI_AGAIN, "no answer")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentNames]:
    names = SilentNames(monkeypatch)
    yield names
    names.released.set()


def silent(owner: int) -> SmtpSettings:
    return SmtpSettings(f"mail{owner}.silent.example", 587, Encryption.NONE, AuthMode.NONE, owner=owner)


@contextmanager
def little_time_for_lookups() -> Iterator[None]:
    """A lookup waits only briefly for its turn, and for its result, once it is about to wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deadline, "remaining", lambda _: 0.3)
        yield


def test_lookups_at_silent_name_servers_leave_room_for_others(silent_names: SilentNames) -> None:
    more = MAX_CONCURRENT_LOOKUPS - MAX_LOOKUPS_PER_OWNER
    with ThreadPoolExecutor(MAX_CONCURRENT_LOOKUPS) as threads, SmtpPeer() as peer:
        asking = [threads.submit(send, silent(7)) for _ in range(MAX_LOOKUPS_PER_OWNER)]
        wait_for(lambda: silent_names.asked == MAX_LOOKUPS_PER_OWNER)
        with little_time_for_lookups():
            results = list(threads.map(lambda _: send(silent(7)), range(more)))
        assert [result[ANN] for result in results] == [BUSY] * more
        assert {pause_after(result) for result in results} == {Pause.NONE}
        assert not any(each.done() for each in asking)
        other = send(settings(peer, host="localhost", owner=8), timeouts=PATIENT)
        assert other[ANN].kind is ReplyKind.ACCEPTED
        silent_names.released.set()
        assert {each.result()[ANN].stage for each in asking} == {Stage.NAME}


def test_nobody_is_paused_because_of_the_lookups_of_others(silent_names: SilentNames) -> None:
    with ThreadPoolExecutor(MAX_CONCURRENT_LOOKUPS) as threads, SmtpPeer() as peer:
        for number in range(MAX_CONCURRENT_LOOKUPS):
            threads.submit(send, silent(100 + number // MAX_LOOKUPS_PER_OWNER))
        wait_for(lambda: silent_names.asked == MAX_CONCURRENT_LOOKUPS)
        with little_time_for_lookups():
            result = send(settings(peer, host="localhost", owner=8))
        assert (result[ANN], pause_after(result)) == (BUSY, Pause.NONE)
        silent_names.released.set()
