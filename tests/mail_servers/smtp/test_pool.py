"""Connections that are kept: which messages may share one, and what ends it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from socket import SHUT_RDWR
from threading import Thread

import pytest
import trustme

from portal.mail_servers.smtp import session
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender, UnsafeHeader
from portal.mail_servers.smtp.outcome import BUSY, Pause, ReplyKind, SmtpReply, Stage
from portal.mail_servers.smtp.pool import Pool, PoolLimits
from tests.mail_servers.example_message import pause_after
from tests.smtp_peer import EXTENSIONS, LOCAL, Fault, ReplyThenHang, Script, SlowReply, SmtpPeer

SENDER = "pbx@portal.example"
ANN = "ann@x.example"
USER, PASSWORD = "jürgen@x.example", "Pässwörd 密码"
TIMEOUTS = Timeouts(connect=30, command=30, total=30, reply=30)
TRANSACTION = ["MAIL", "RCPT", "DATA"]


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return MimeMessage(
        MessageContent.of("Call lost", "Text\n", ""), Sender(SENDER), [ANN], message_id="<1@portal.example>", date=now
    )


def plain(peer: SmtpPeer) -> SmtpSettings:
    return SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL, owner=peer.port)


def send(
    pool: Pool, settings: SmtpSettings, timeouts: Timeouts = TIMEOUTS, ca_file: Path | None = None
) -> dict[str, SmtpReply]:
    return pool.send(replace(settings, ca_file=ca_file), message(), SENDER, [ANN], timeouts)


def kind_of_reply(pool: Pool, peer: SmtpPeer) -> ReplyKind:
    return send(pool, plain(peer))[ANN].kind


@contextmanager
def pool_of(limits: PoolLimits = PoolLimits(), concurrency: ConcurrencyLimits = ConcurrencyLimits()) -> Iterator[Pool]:  # noqa: B008 (frozen)
    pool = Pool(limits, concurrency)
    yield pool
    pool.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    with pool_of() as pool:
        yield pool


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    with SmtpPeer(extensions=[*EXTENSIONS, "PIPELINING"]) as peer:
        yield peer


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# One connection for many messages


def test_one_connection_carries_many_messages_and_signs_in_once(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    with SmtpPeer(certificate=certificate, accounts={USER: PASSWORD}) as peer:
        settings = SmtpSettings(
            peer.host, peer.port, Encryption.STARTTLS, AuthMode.PLAIN, USER, PASSWORD, network_policy=LOCAL
        )
        results = [send(pool, settings, ca_file=ca_file) for _ in range(3)]
        pool.close()
        wait_until(lambda: peer.conversations[0].verbs[-1] == "QUIT")
    assert {result[ANN].kind for result in results} == {ReplyKind.ACCEPTED}
    (conversation,) = peer.conversations
    assert conversation.verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", *TRANSACTION * 3, "QUIT"]
    assert len(peer.messages) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"username": "somebody@x.example"},
        {"password": PASSWORD + " "},
        {"auth_mode": AuthMode.LOGIN},
        {"auth_mode": AuthMode.NONE},
        {"host": "localhost"},
        {"encryption": Encryption.STARTTLS},
    ],
    ids=str,
)
def test_other_settings_never_share_a_connection(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path, other: dict[str, object]
) -> None:
    accounts = {USER: PASSWORD, "somebody@x.example": PASSWORD}
    with SmtpPeer(certificate=certificate, accounts=accounts) as peer:
        mine = SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.PLAIN, USER, PASSWORD, network_policy=LOCAL)
        send(pool, mine, ca_file=ca_file)
        send(pool, replace(mine, **other), ca_file=ca_file)  # type: ignore[arg-type]
        assert len(peer.conversations) == 2
        send(pool, mine, ca_file=ca_file)
    first, second = peer.conversations
    assert (first.signed_in_as, len(first.messages)) == (USER, 2)
    assert len(second.messages) <= 1


def test_another_ehlo_name_or_authority_opens_another_connection(pool: Pool, peer: SmtpPeer, ca_file: Path) -> None:
    for helo_name, authority in ((None, None), ("a.example", None), ("a.example", ca_file), (None, ca_file)):
        pool.send(replace(plain(peer), helo_name=helo_name, ca_file=authority), message(), SENDER, [ANN], TIMEOUTS)
    assert [len(conversation.messages) for conversation in peer.conversations] == [1, 1, 1, 1]


def test_threads_share_the_connections_one_message_at_a_time(peer: SmtpPeer) -> None:
    with pool_of(concurrency=ConcurrencyLimits(per_server=3, max_wait=5)) as pool, ThreadPoolExecutor(8) as threads:
        kinds = set(threads.map(lambda _: kind_of_reply(pool, peer), range(100)))
    assert kinds == {ReplyKind.ACCEPTED}
    assert len(peer.messages) == 100
    assert len(peer.conversations) <= 3


# What ends a connection


@pytest.mark.parametrize(
    "script",
    [
        {"rcpt": Fault.DROP},
        {"dot": "421 4.3.2 restarting"},
        {"dot": ReplyThenHang("421 4.3.2 restarting, some day")},
        {"dot": Fault.GARBAGE},
        {"data": "354 go ahead\n554 5.7.1 no, wait"},
    ],
    ids=str,
)
def test_a_failed_connection_is_not_kept(pool: Pool, peer: SmtpPeer, script: Script) -> None:
    peer.script = script
    assert kind_of_reply(pool, peer) is not ReplyKind.ACCEPTED
    peer.script = {}
    assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


@pytest.mark.parametrize("script", [{"rcpt": "550 5.1.1 no"}, {"data": "451 4.3.0 no"}, {"dot": "554 5.7.1 no"}])
def test_a_connection_is_kept_after_a_rejected_message(pool: Pool, peer: SmtpPeer, script: dict[str, str]) -> None:
    peer.script = script
    assert kind_of_reply(pool, peer) is not ReplyKind.ACCEPTED
    peer.script = {}
    assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED
    reset = [] if "dot" in script else ["RSET"]
    assert [conversation.verbs for conversation in peer.conversations] == [["EHLO", *TRANSACTION, *reset, *TRANSACTION]]


def test_a_rejected_sender_is_tried_once_more_on_a_new_connection(pool: Pool, peer: SmtpPeer) -> None:
    kind_of_reply(pool, peer)
    peer.script = {"mail": "530 5.7.0 sign in first"}
    assert send(pool, plain(peer))[ANN].code == 530
    assert send(pool, plain(peer))[ANN].code == 530
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [2, 1, 1]


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle for too long\r\n"])
def test_a_connection_closed_by_the_server_is_replaced(pool: Pool, peer: SmtpPeer, farewell: bytes) -> None:
    kind_of_reply(pool, peer)
    (server_side,) = peer._sockets
    server_side.sendall(farewell)
    if not farewell:
        server_side.shutdown(2)
    assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


def test_unasked_data_in_the_same_tls_record_is_noticed(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    exactly_one_read = "250 ".ljust(4094, ".")
    with SmtpPeer({"dot": f"{exactly_one_read}\n421 4.3.2 bye"}, certificate=certificate) as peer:
        settings = replace(plain(peer), encryption=Encryption.STARTTLS)
        kinds = [send(pool, settings, ca_file=ca_file)[ANN].kind for _ in range(2)]
    assert kinds == [ReplyKind.ACCEPTED, ReplyKind.ACCEPTED]
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


def test_a_kept_connection_uses_the_timeouts_of_each_message(pool: Pool, peer: SmtpPeer) -> None:
    kind_of_reply(pool, peer)
    peer.script = {"rcpt": Fault.SILENCE}
    began = time.monotonic()
    send(pool, plain(peer), replace(TIMEOUTS, command=0.1))
    assert time.monotonic() - began < TIMEOUTS.command / 2


def test_the_new_connection_has_only_the_remaining_time(pool: Pool, peer: SmtpPeer) -> None:
    kind_of_reply(pool, peer)
    peer.script = {"mail": Fault.SILENCE}
    began = time.monotonic()
    result = send(pool, plain(peer), replace(TIMEOUTS, total=0.3))
    assert time.monotonic() - began < TIMEOUTS.command / 2
    assert (result[ANN].stage, pause_after(result)) == (Stage.MAIL, Pause.BRIEF)
    assert len(peer.conversations) == 1, "no new connection without time"


def test_an_idle_connection_is_closed_in_time(peer: SmtpPeer) -> None:
    with pool_of(PoolLimits(idle_timeout=0.05)) as pool:
        for _ in range(2):  # for the second one the closer has to be started again
            kind_of_reply(pool, peer)
            wait_until(lambda: peer.conversations[-1].verbs[-1] == "QUIT")
    assert len(peer.conversations) == 2


def test_the_message_is_sent_if_no_thread_can_be_started(
    pool: Pool, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThread(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("portal.mail_servers.smtp.pool.Thread", NoThread)
    assert [kind_of_reply(pool, peer), kind_of_reply(pool, peer)] == [ReplyKind.ACCEPTED, ReplyKind.ACCEPTED]


@pytest.mark.parametrize(
    ("limits", "messages"), [(PoolLimits(messages_per_connection=3), [3, 2]), (PoolLimits(max_age=0), [1, 1, 1, 1, 1])]
)
def test_a_connection_has_a_maximum_age_and_number_of_messages(
    peer: SmtpPeer, limits: PoolLimits, messages: list[int]
) -> None:
    with pool_of(limits) as pool:
        for _ in range(5):
            kind_of_reply(pool, peer)
    assert [len(conversation.messages) for conversation in peer.conversations] == messages


@pytest.mark.parametrize("limits", [PoolLimits(idle_connections=2), PoolLimits(idle_connections_to_host=2)])
def test_the_longest_idle_connection_is_closed_if_there_are_too_many(limits: PoolLimits) -> None:
    with SmtpPeer() as first, SmtpPeer() as second, SmtpPeer() as third, pool_of(limits) as pool:
        for peer in (first, second, third, second, third, first):
            kind_of_reply(pool, peer)
        assert [len(peer.conversations) for peer in (first, second, third)] == [2, 1, 1]


def test_an_unsafe_message_leaves_the_connection_usable(pool: Pool, peer: SmtpPeer) -> None:
    kind_of_reply(pool, peer)
    with pytest.raises(UnsafeHeader):
        pool.send(plain(peer), message(), "eve@x.example>\r\nDATA", [ANN], TIMEOUTS)
    assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED
    assert [conversation.verbs for conversation in peer.conversations] == [["EHLO", *TRANSACTION * 2]]


def test_a_connection_is_not_kept_after_an_unexpected_exception(
    pool: Pool, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind_of_reply(pool, peer)
    with monkeypatch.context() as patch:
        patch.delattr(session, "_dot_stuffed")
        with pytest.raises(NameError):
            kind_of_reply(pool, peer)
    assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [2, 1]


# Slots


def test_a_slow_server_is_busy_for_the_next_message_and_others_are_not(peer: SmtpPeer) -> None:
    peer.script = {"dot": Fault.SILENCE}
    with (
        SmtpPeer() as other,
        pool_of(concurrency=ConcurrencyLimits(per_server=1, max_wait=0.05, slow_after=600)) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        slow = thread.submit(send, pool, plain(peer), replace(TIMEOUTS, reply=60))
        wait_until(lambda: bool(peer.conversations and peer.conversations[0].messages))
        assert send(pool, plain(peer)) == {ANN: BUSY}
        assert kind_of_reply(pool, other) is ReplyKind.ACCEPTED
        assert not slow.done()
        peer._sockets[0].shutdown(SHUT_RDWR)
        assert slow.result()[ANN].kind is ReplyKind.UNKNOWN
        peer.script = {}
        assert kind_of_reply(pool, peer) is ReplyKind.ACCEPTED


def test_a_slot_released_within_the_wait_is_used(peer: SmtpPeer) -> None:
    peer.script = {"dot": SlowReply("250 2.0.0 queued", 0.01)}
    with (
        pool_of(concurrency=ConcurrencyLimits(per_server=1, max_wait=60, slow_after=600)) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        assert list(threads.map(lambda _: kind_of_reply(pool, peer), range(2))) == [
            ReplyKind.ACCEPTED,
            ReplyKind.ACCEPTED,
        ]
    assert len(peer.conversations) == 1


def test_no_password_is_kept_without_a_connection(pool: Pool, peer: SmtpPeer) -> None:
    peer.script = {"auth": "535 5.7.8 no"}
    peer.accounts, peer.mechanisms = {"u": "p"}, "PLAIN"
    send(pool, SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.PLAIN, "u", "geheim", network_policy=LOCAL))
    assert not pool.slots._in_use
    assert not pool._idle
