"""Sessions with a Microsoft mailbox: at most three, over all threads, pools and processes."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from portal.database import process_locks
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpConnection, SmtpSettings
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.connect import Deadline, Timeouts
from portal.mail_servers.smtp.outcome import BUSY, ReplyKind, SmtpFailure
from portal.mail_servers.smtp.pool import Pool, PoolLimits, _PooledConnection
from tests import processes
from tests.mail_servers.example_message import ANN, SENDER, message
from tests.mail_servers.example_message import send as send_test_email
from tests.smtp_peer import LOCAL, SmtpPeer, closed_port

MAILBOX, TOKEN = "pbx@acme.example", "a token"
PATIENT = ConcurrencyLimits(per_server=4, max_wait=60, slow_after=600)

OPEN_SESSIONS = """
import sys, time
from flask import Flask
from portal.extensions import db
from tests.mail_servers.smtp import test_mailbox_limit

*_, url, port = sys.argv
app = Flask("another process")
app.config["SQLALCHEMY_DATABASE_URI"] = url
db.init_app(app)
with app.app_context():
    sessions = test_mailbox_limit.open_sessions(int(port), 2)
    print(len(sessions), flush=True)
    time.sleep(60)
"""


@dataclass(frozen=True)
class OneToken:
    """Always gives the same token."""

    mailbox_provider: str

    def access_token(self, *, rejected: str | None = None) -> str:
        return TOKEN


def settings(port: int, provider: str = "microsoft", **changes: object) -> SmtpSettings:
    values = {"network_policy": LOCAL, "owner": 1, "token_source": OneToken(provider), "username": MAILBOX, **changes}
    return SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.OAUTH, **values)  # type: ignore[arg-type]


def open_sessions(port: int, wanted: int, provider: str = "microsoft", **changes: object) -> list[SmtpConnection]:
    """Try to open this many sessions, and return those that were opened."""
    opened = []
    for _ in range(wanted):
        connection = SmtpConnection(settings(port, provider, **changes))
        with suppress(SmtpFailure):
            connection.open(Deadline(Timeouts(mailbox=0)))
            opened.append(connection)
    return opened


def kind_of_reply(pool: Pool, to: SmtpSettings) -> ReplyKind | str:
    reply = pool.send(to, message(), SENDER, [ANN])[ANN]
    return "busy" if reply is BUSY else reply.kind


def keep_three(pool: Pool, to: SmtpSettings) -> None:
    """Give the pool three sessions that have sent a message."""
    for _ in range(3):
        connection = _PooledConnection(settings(to.port))
        connection.open(Deadline(Timeouts(mailbox=0)))
        connection.deliver(message(), SENDER, [ANN])
        pool._put_back(connection)


def send_at_once(app: Flask, pool: Pool, to: SmtpSettings, count: int) -> list[ReplyKind | str]:
    """Send this many messages, each in a thread of its own."""

    def send(_: int) -> ReplyKind | str:
        with app.app_context():
            return kind_of_reply(pool, to)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(send, range(count)))


@contextmanager
def pool_of(limits: PoolLimits = PoolLimits(), concurrency: ConcurrencyLimits = PATIENT) -> Iterator[Pool]:  # noqa: B008 (frozen)
    pool = Pool(limits, concurrency)
    yield pool
    pool.close()


@pytest.fixture
def peer(context: Flask) -> Iterator[SmtpPeer]:
    with SmtpPeer(accounts={MAILBOX: TOKEN}, mechanisms="XOAUTH2") as peer:
        yield peer
    locks = process_locks._locks()
    assert (locks._connection, locks._held) == (None, set()), "a session was not given back"


# Sessions of this process


def test_there_are_three_and_each_that_ends_makes_room(peer: SmtpPeer) -> None:
    opened = open_sessions(peer.port, 5)
    assert len(opened) == len(peer.conversations) == 3, "who finds none does not connect"
    opened.pop().close()
    opened.pop().abandon()
    opened += open_sessions(peer.port, 3)
    assert len(opened) == 3
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("other", [{"owner": 2}, {"owner": None}, {"username": "other@acme.example"}])
def test_another_mailbox_and_another_owner_has_its_own(peer: SmtpPeer, other: dict[str, object]) -> None:
    peer.accounts = {MAILBOX: TOKEN, "other@acme.example": TOKEN}
    opened = [*open_sessions(peer.port, 4), *open_sessions(peer.port, 4, **other)]  # type: ignore[arg-type]
    assert len(opened) == 6
    for connection in opened:
        connection.close()


def test_the_case_of_a_mailbox_does_not_matter(peer: SmtpPeer) -> None:
    peer.accounts = {MAILBOX: TOKEN, MAILBOX.upper(): TOKEN}
    opened = [*open_sessions(peer.port, 2), *open_sessions(peer.port, 2, username=MAILBOX.upper())]
    assert len(opened) == 3
    for connection in opened:
        connection.close()


def test_a_session_that_fails_is_given_back(peer: SmtpPeer) -> None:
    peer.script = {"auth": "535 5.7.3 Authentication unsuccessful"}
    for _ in range(4):
        assert send_test_email(settings(peer.port))[ANN].code == 535
    with closed_port() as port:
        for _ in range(4):
            assert send_test_email(settings(port))[ANN].text == "The connection was refused."


@pytest.mark.parametrize(
    ("changes", "mailbox"),
    [
        ({"host": "smtp.office365.com", "token_source": None, "auth_mode": AuthMode.LOGIN}, MAILBOX),
        ({"host": "smtp.office365.com", "token_source": None, "auth_mode": AuthMode.NONE}, None),
        ({"host": "smtp.gmail.com", "token_source": OneToken("google")}, None),
        ({"host": "mail.acme.example", "token_source": None, "auth_mode": AuthMode.AUTO}, None),
        ({"username": None}, None),
    ],
)
def test_which_mailboxes_are_limited(changes: dict[str, object], mailbox: str | None) -> None:
    assert replace(settings(587), **changes).limited_mailbox == mailbox  # type: ignore[arg-type]


def test_other_mail_servers_do_not_ask_postgres(peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_locks, "take_any", None)
    opened = open_sessions(peer.port, 5, "google")
    assert len(opened) == 5
    for connection in opened:
        connection.close()


def test_without_postgres_the_mailbox_is_busy(peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_any(_: object) -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr(process_locks, "take_any", take_any)
    with pool_of() as pool:
        assert kind_of_reply(pool, settings(peer.port)) == "busy"
    assert not peer.conversations


# Kept connections


def test_many_messages_at_once_share_three_sessions(context: Flask, peer: SmtpPeer) -> None:
    with pool_of() as pool:
        assert set(send_at_once(context, pool, settings(peer.port), 20)) == {ReplyKind.ACCEPTED}
        assert len(peer.messages) == 20
        assert 1 <= len(peer.conversations) <= 3


def test_a_kept_session_counts_and_is_soon_given_back(peer: SmtpPeer) -> None:
    limits = PoolLimits(idle_timeout=600, idle_timeout_of_limited_mailbox=600)
    with pool_of(limits) as pool, pool_of() as other, SmtpPeer() as unlimited:
        to = replace(settings(unlimited.port), auth_mode=AuthMode.NONE, token_source=None)
        assert kind_of_reply(pool, to) is ReplyKind.ACCEPTED, "which is kept for longer, by the same thread"
        keep_three(pool, settings(peer.port))
        assert kind_of_reply(pool, settings(peer.port)) is ReplyKind.ACCEPTED
        assert len(peer.conversations) == 3
        assert kind_of_reply(other, settings(peer.port)) == "busy"
        pool.limits = replace(limits, idle_timeout_of_limited_mailbox=0.1)
        assert kind_of_reply(pool, settings(peer.port)) is ReplyKind.ACCEPTED
        assert len(peer.conversations) == 3
        processes.wait_for(lambda: kind_of_reply(other, settings(peer.port)) is ReplyKind.ACCEPTED)
        assert unlimited.conversations[0].verbs[-1] == "DATA"


def test_a_test_email_waits_for_a_kept_session(peer: SmtpPeer) -> None:
    with pool_of(PoolLimits(idle_timeout_of_limited_mailbox=0.5)) as pool:
        keep_three(pool, settings(peer.port))
        assert send_test_email(settings(peer.port))[ANN].kind is ReplyKind.ACCEPTED


def test_sessions_with_settings_that_have_changed_make_room_at_once(peer: SmtpPeer) -> None:
    with pool_of() as pool:
        keep_three(pool, settings(peer.port))
        changed = settings(peer.port, helo_name="portal.example")
        assert kind_of_reply(pool, changed) is ReplyKind.ACCEPTED
    verbs = [conversation.verbs for conversation in peer.conversations]
    assert [verb[-1] for verb in verbs[:3]] == ["QUIT"] * 3
    assert [verb.count("DATA") for verb in verbs] == [1, 1, 1, 1]


# Processes


@pytest.mark.slow
def test_two_processes_have_three_sessions_and_a_killed_one_has_none(
    peer: SmtpPeer, tmp_path: Path, context: Flask
) -> None:
    output = tmp_path / "output"
    url = context.config["SQLALCHEMY_DATABASE_URI"]
    other = processes.start("-c", OPEN_SESSIONS, url, str(peer.port), environment=os.environ, output=output)
    try:
        processes.wait_for(lambda: output.exists() and output.read_text() == "2\n")
        mine = open_sessions(peer.port, 3)
        assert (len(mine), len(peer.conversations)) == (1, 3)
    finally:
        other.kill()
        other.join()
    end = time.monotonic() + 60
    while len(mine) < 3 and time.monotonic() < end:  # until Postgres has noticed
        mine += open_sessions(peer.port, 3)
    assert len(mine) == 3
    assert not open_sessions(peer.port, 1)
    for connection in mine:
        connection.close()
