"""Sessions that are kept: who may share one, and what ends it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
import trustme

from portal.mail_servers import smtp
from portal.mail_servers.composing import MimeMessage, Sender, UnsafeHeader, Words, compose
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SendResult, SmtpSettings
from portal.mail_servers.outcome import Kind, Pause, Stage
from portal.mail_servers.places import PlaceLimits
from portal.mail_servers.pool import BUSY, Limits, Pool
from tests.smtp_peer import EXTENSIONS, LOCAL, Act, Deaf, Script, Slowly, SmtpPeer

SENDER = "pbx@portal.example"
ANN = "ann@x.example"
USER, PASSWORD = "jürgen@x.example", "Pässwörd 密码"
BUDGET = Budget(connect=2, command=2, total=2, reply=2)
A_MAIL = ["MAIL", "RCPT", "DATA"]


def message() -> MimeMessage:
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    return compose(Words("Call lost", "Text\n", ""), Sender(SENDER), [ANN], message_id="<1@portal.example>", date=now)


def plain(peer: SmtpPeer) -> SmtpSettings:
    return SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.NONE, reach=LOCAL)


def post(pool: Pool, settings: SmtpSettings, budget: Budget = BUDGET, ca_file: Path | None = None) -> SendResult:
    return pool.send(settings, message(), SENDER, [ANN], budget, ca_file=ca_file)


def kind(pool: Pool, peer: SmtpPeer) -> Kind:
    return post(pool, plain(peer)).outcomes[ANN].kind


@contextmanager
def pool_of(limits: Limits = Limits(), places: PlaceLimits = PlaceLimits()) -> Iterator[Pool]:  # noqa: B008 (frozen)
    pool = Pool(limits, places)
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


def until(condition: Callable[[], bool]) -> None:
    """Wait a little for what another thread does."""
    end = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# One session for many mails


def test_one_session_carries_many_mails_and_is_signed_in_once(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    with SmtpPeer(certificate=certificate, accounts={USER: PASSWORD}) as peer:
        settings = SmtpSettings(peer.host, peer.port, Encryption.STARTTLS, AuthMode.PLAIN, USER, PASSWORD, reach=LOCAL)
        results = [post(pool, settings, ca_file=ca_file) for _ in range(3)]
        pool.close()
        until(lambda: peer.conversations[0].verbs[-1] == "QUIT")
    assert {result.outcomes[ANN].kind for result in results} == {Kind.SENT}
    (conversation,) = peer.conversations
    assert conversation.verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", *A_MAIL * 3, "QUIT"]
    assert len(peer.mails) == 3


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
def test_other_settings_never_share_a_session(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path, other: dict[str, object]
) -> None:
    accounts = {USER: PASSWORD, "somebody@x.example": PASSWORD}
    with SmtpPeer(certificate=certificate, accounts=accounts) as peer:
        mine = SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.PLAIN, USER, PASSWORD, reach=LOCAL)
        post(pool, mine, ca_file=ca_file)
        post(pool, replace(mine, **other), ca_file=ca_file)  # type: ignore[arg-type]
        assert len(peer.conversations) == 2
        post(pool, mine, ca_file=ca_file)
    first, second = peer.conversations
    assert (first.signed_in_as, len(first.mails)) == (USER, 2)
    assert len(second.mails) <= 1


def test_another_name_or_authority_opens_another_session(pool: Pool, peer: SmtpPeer, ca_file: Path) -> None:
    for helo_name, authority in ((None, None), ("a.example", None), ("a.example", ca_file), (None, ca_file)):
        pool.send(plain(peer), message(), SENDER, [ANN], BUDGET, helo_name=helo_name, ca_file=authority)
    assert [len(conversation.mails) for conversation in peer.conversations] == [1, 1, 1, 1]


def test_threads_share_the_sessions_one_mail_at_a_time(peer: SmtpPeer) -> None:
    with pool_of(places=PlaceLimits(each=3, moment=5)) as pool, ThreadPoolExecutor(8) as threads:
        kinds = set(threads.map(lambda _: kind(pool, peer), range(100)))
    assert kinds == {Kind.SENT}
    assert len(peer.mails) == 100
    assert len(peer.conversations) <= 3


# What ends a session


@pytest.mark.parametrize(
    "script",
    [
        {"rcpt": Act.DROP},
        {"dot": "421 4.3.2 restarting"},
        {"dot": Deaf("421 4.3.2 restarting, some day")},
        {"dot": Act.GARBAGE},
        {"data": "354 go ahead\n554 5.7.1 no, wait"},
    ],
    ids=str,
)
def test_one_that_ended_badly_is_not_kept(pool: Pool, peer: SmtpPeer, script: Script) -> None:
    peer.script = script
    assert kind(pool, peer) is not Kind.SENT
    peer.script = {}
    assert kind(pool, peer) is Kind.SENT
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


@pytest.mark.parametrize("script", [{"rcpt": "550 5.1.1 no"}, {"data": "451 4.3.0 no"}, {"dot": "554 5.7.1 no"}])
def test_one_whose_mail_was_refused_is_kept(pool: Pool, peer: SmtpPeer, script: dict[str, str]) -> None:
    peer.script = script
    assert kind(pool, peer) is not Kind.SENT
    peer.script = {}
    assert kind(pool, peer) is Kind.SENT
    forgotten = [] if "dot" in script else ["RSET"]
    assert [conversation.verbs for conversation in peer.conversations] == [["EHLO", *A_MAIL, *forgotten, *A_MAIL]]


def test_a_sender_that_is_refused_is_asked_for_once_more_on_a_new_session_and_no_oftener(
    pool: Pool, peer: SmtpPeer
) -> None:
    kind(pool, peer)
    peer.script = {"mail": "530 5.7.0 sign in first"}
    assert post(pool, plain(peer)).outcomes[ANN].code == 530
    assert post(pool, plain(peer)).outcomes[ANN].code == 530
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [2, 1, 1]


@pytest.mark.parametrize("last_word", [b"", b"421 4.4.2 idle for too long\r\n"])
def test_one_that_the_server_closed_is_replaced_without_a_word(pool: Pool, peer: SmtpPeer, last_word: bytes) -> None:
    kind(pool, peer)
    (server_side,) = peer._sockets
    server_side.sendall(last_word)
    if not last_word:
        server_side.shutdown(2)
    assert kind(pool, peer) is Kind.SENT
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


def test_what_came_unasked_within_the_same_tls_record_is_noticed(
    pool: Pool, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    exactly_one_read = "250 ".ljust(4094, ".")
    with SmtpPeer({"dot": f"{exactly_one_read}\n421 4.3.2 bye"}, certificate=certificate) as peer:
        settings = replace(plain(peer), encryption=Encryption.STARTTLS)
        kinds = [post(pool, settings, ca_file=ca_file).outcomes[ANN].kind for _ in range(2)]
    assert kinds == [Kind.SENT, Kind.SENT]
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [1, 1]


def test_a_kept_session_keeps_the_times_of_each_mail(pool: Pool, peer: SmtpPeer) -> None:
    kind(pool, peer)
    peer.script = {"rcpt": Act.SILENCE}
    began = time.monotonic()
    post(pool, plain(peer), replace(BUDGET, command=0.1))
    assert time.monotonic() - began < 0.6


def test_the_new_session_has_only_the_time_that_is_left(pool: Pool, peer: SmtpPeer) -> None:
    kind(pool, peer)
    peer.script = {"mail": Act.SILENCE}
    began = time.monotonic()
    result = post(pool, plain(peer), Budget(connect=0.3, command=0.3, total=0.3, reply=1))
    assert time.monotonic() - began < 0.6
    assert (result.outcomes[ANN].stage, result.pause) == (Stage.MAIL, Pause.BRIEF)
    assert len(peer.conversations) == 1, "no time, no new session"


def test_one_without_mails_is_closed_in_time(peer: SmtpPeer) -> None:
    with pool_of(Limits(idle=0.05)) as pool:
        for _ in range(2):  # the second time there has to be somebody again who closes
            kind(pool, peer)
            until(lambda: peer.conversations[-1].verbs[-1] == "QUIT")
    assert len(peer.conversations) == 2


def test_where_no_thread_is_to_be_had_the_mail_is_sent_all_the_same(
    pool: Pool, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThread(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("portal.mail_servers.pool.Thread", NoThread)
    assert [kind(pool, peer), kind(pool, peer)] == [Kind.SENT, Kind.SENT]


@pytest.mark.parametrize(("limits", "carried"), [(Limits(mails=3), [3, 2]), (Limits(age=0), [1, 1, 1, 1, 1])])
def test_none_is_used_for_ever(peer: SmtpPeer, limits: Limits, carried: list[int]) -> None:
    with pool_of(limits) as pool:
        for _ in range(5):
            kind(pool, peer)
    assert [len(conversation.mails) for conversation in peer.conversations] == carried


def test_no_more_than_some_are_kept_and_the_longest_idle_goes_first() -> None:
    with SmtpPeer() as first, SmtpPeer() as second, SmtpPeer() as third, pool_of(Limits(kept=2)) as pool:
        for peer in (first, second, third, second, third, first):
            kind(pool, peer)
        assert [len(peer.conversations) for peer in (first, second, third)] == [2, 1, 1]


def test_a_mail_that_cannot_be_sent_leaves_the_session_as_it_was(pool: Pool, peer: SmtpPeer) -> None:
    kind(pool, peer)
    with pytest.raises(UnsafeHeader):
        pool.send(plain(peer), message(), "eve@x.example>\r\nDATA", [ANN], BUDGET)
    assert kind(pool, peer) is Kind.SENT
    assert [conversation.verbs for conversation in peer.conversations] == [["EHLO", *A_MAIL * 2]]


def test_one_that_something_unforeseen_broke_off_is_not_kept(
    pool: Pool, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind(pool, peer)
    with monkeypatch.context() as patch:
        patch.delattr(smtp, "_dot_stuffed")
        with pytest.raises(NameError):
            kind(pool, peer)
    assert kind(pool, peer) is Kind.SENT
    assert [conversation.verbs.count("MAIL") for conversation in peer.conversations] == [2, 1]


# Places


def test_a_server_that_is_slow_with_one_mail_is_busy_for_the_next_and_others_are_not(peer: SmtpPeer) -> None:
    peer.script = {"dot": Act.SILENCE}
    with SmtpPeer() as other, pool_of(places=PlaceLimits(each=1, moment=0.05)) as pool, ThreadPoolExecutor(1) as thread:
        slow = thread.submit(post, pool, plain(peer), Budget(reply=1))
        until(lambda: bool(peer.conversations and peer.conversations[0].mails))
        assert post(pool, plain(peer)) == SendResult({ANN: BUSY}, Pause.NONE)
        assert kind(pool, other) is Kind.SENT
        assert not slow.done()
        assert slow.result().outcomes[ANN].kind is Kind.UNKNOWN
        peer.script = {}
        assert kind(pool, peer) is Kind.SENT


def test_a_place_that_gets_free_within_a_moment_is_taken(peer: SmtpPeer) -> None:
    peer.script = {"dot": Slowly("250 2.0.0 queued", 0.01)}
    with pool_of(places=PlaceLimits(each=1, moment=3)) as pool, ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: kind(pool, peer), range(2))) == [Kind.SENT, Kind.SENT]
    assert len(peer.conversations) == 1


def test_no_password_is_remembered_without_a_session(pool: Pool, peer: SmtpPeer) -> None:
    peer.script = {"auth": "535 5.7.8 no"}
    peer.accounts, peer.mechanisms = {"u": "p"}, "PLAIN"
    post(pool, SmtpSettings(peer.host, peer.port, Encryption.NONE, AuthMode.PLAIN, "u", "geheim", reach=LOCAL))
    assert not pool.places._begun
    assert not pool._waiting
