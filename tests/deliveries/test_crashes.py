"""A process is killed at each point between the POST and the answer: nothing that was acknowledged is lost.

Exactly one mail goes out where the mail server had not taken it yet, at most two with one Message-ID where it had.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from portal.config import ROOT, Settings
from portal.deliveries import retry
from portal.extensions import db
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.ready import CALL_LOST, PEOPLE
from tests.smtp_peer import Move, SmtpPeer
from tests.sql import sql

DEFER_TAKE_UP = (
    "SELECT procrastinate_defer_periodic_job_v2('default', NULL, NULL, 'portal:take_up', 0, '', 1, :arguments)"
)
NOT_TAKEN = ("greeting", "ehlo", "mail", "rcpt", "data")  # at these steps the mail server has not taken the mail yet
TAKEN = "dot"


class DeadlyScript(dict[str, Move]):
    """The script of a mail server that kills a process when the conversation comes to a step."""

    def __init__(self, step: str, pid: int) -> None:
        super().__init__()
        self.step, self.pid = step, pid

    def get(self, step: str, default: Any = None) -> Any:
        """Return the move of a good mail server, after the deed."""
        if step == self.step and self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.pid = 0
        return default


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a portal of its own on the same database."""
    assert settings.database_url is not None
    return {
        **os.environ,
        "PORTAL_ENV": "production",
        "PORTAL_URL": "http://portal.test",
        "SECRET_KEY": TEST_SECRET,
        "ENCRYPTION_KEYS": TEST_KEY,
        "SMTP_ALLOWED_NETWORKS": "127.0.0.0/8",
        "DATABASE_URL": settings.database_url.replace("+psycopg", ""),
    }


class Web:
    """A web process, and a PBX that talks to it."""

    def __init__(self, environment: dict[str, str], point: str, key: str) -> None:
        command = [sys.executable, "-m", "tests.crashing", "web", point]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.key = key

    def post(self) -> dict[str, Any] | None:
        """Return the answer, None where the process died instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"type": "queue.call_lost", "id": "one", "data": CALL_LOST})
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/api/v1/events", body, headers)
            answer: dict[str, Any] = json.load(connection.getresponse())
        except (ConnectionError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def healthy(environment: dict[str, str], key: str, ready: str) -> Iterator[Web]:
    """A web process that lives, for the PBX's repeated call."""
    web = Web(environment, "never", key)
    yield web
    web.stop()


def let_workers_take_over(app: Flask) -> None:
    """Let the leases of dead processes run out, and workers see it."""
    with app.app_context():
        sql("UPDATE deliveries SET lease_until = now() WHERE lease_until IS NOT NULL")
        sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        for tenant_id, delivery_id in retry.due(10):
            retry.retry(tenant_id, delivery_id)


def message_ids(peer: SmtpPeer) -> set[bytes]:
    return {line for mail in peer.mails for line in re.findall(rb"^Message-ID: .*$", mail.content, re.MULTILINE)}


def settle(app: Flask, healthy: Web, peer: SmtpPeer) -> None:
    """Assert that the PBX's repeated call and the workers bring the event to its one end, whatever happened before."""
    peer.script = {}
    answer = healthy.post()
    assert answer is not None
    assert answer["status"] in {"sent", "deferred"}
    let_workers_take_over(app)
    answer = healthy.post()
    assert answer is not None
    assert (answer["status"], answer["duplicate"]) == ("sent", True)
    assert len(message_ids(peer)) == 1
    assert all(mail.recipients == PEOPLE for mail in peer.mails)


@pytest.mark.parametrize("step", [*NOT_TAKEN, TAKEN])
def test_the_web_process_dies_while_it_talks_to_the_mail_server(
    app: Flask, environment: dict[str, str], healthy: Web, peer: SmtpPeer, key: str, step: str
) -> None:
    web = Web(environment, "never", key)
    peer.script = DeadlyScript(step, web.process.pid)
    assert web.post() is None
    web.stop()
    settle(app, healthy, peer)
    assert len(peer.mails) == 1 if step in NOT_TAKEN else len(peer.mails) <= 2


@pytest.mark.parametrize(
    ("point", "most_mails"),
    [("before commit 1", 1), ("after commit 1", 1), ("before commit 2", 2), ("after commit 2", 1)],
)
def test_the_web_process_dies_at_a_transaction(
    app: Flask, environment: dict[str, str], healthy: Web, peer: SmtpPeer, key: str, point: str, most_mails: int
) -> None:
    web = Web(environment, point, key)
    assert web.post() is None
    web.stop()
    settle(app, healthy, peer)
    assert len(peer.mails) <= most_mails


def work(environment: dict[str, str], point: str, app: Flask) -> int:
    """Make all mails due, let a worker process do what there is to do, and return its exit status."""
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
        sql(DEFER_TAKE_UP, arguments='{"timestamp": 1}')
    command = [sys.executable, "-m", "tests.crashing", "worker", point]
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=60, check=False).returncode


@pytest.fixture
def deferred(healthy: Web, peer: SmtpPeer) -> None:
    """A mail that was not accepted at first, and would be now."""
    peer.script = {"dot": "451 4.3.0 later"}
    answer = healthy.post()
    assert answer is not None
    assert answer["status"] == "deferred"
    peer.script = {}


def test_a_worker_does_what_is_due_and_leaves_no_job(
    app: Flask, environment: dict[str, str], healthy: Web, peer: SmtpPeer, deferred: None
) -> None:
    assert work(environment, "never", app) == 0
    answer = healthy.post()
    assert answer is not None
    assert answer["status"] == "sent"
    with app.app_context():
        left = text("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'portal:attempt'")
        assert db.session.scalar(left) == 0


@pytest.mark.parametrize("point", ["before commit 1", "after commit 1", "before commit 2", "after commit 2"])
def test_the_worker_dies_at_a_transaction(
    app: Flask, environment: dict[str, str], healthy: Web, peer: SmtpPeer, deferred: None, point: str
) -> None:
    assert work(environment, point, app) == -signal.SIGKILL
    settle(app, healthy, peer)
    assert len(peer.mails) <= (2 if point == "before commit 2" else 1)


def test_fifty_calls_with_one_id_make_one_event_and_one_mail(healthy: Web, peer: SmtpPeer, app: Flask) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: healthy.post(), range(50)))
    assert all(answer and answer["status"] in {"sent", "deferred"} for answer in answers)
    assert [answer and answer["duplicate"] for answer in answers].count(False) == 1
    assert len(peer.mails) == 1
    with app.app_context():
        assert sql("SELECT count(*) FROM events")[0][0] == 1
    last = healthy.post()
    assert last is not None
    assert (last["status"], last["duplicate"]) == ("sent", True)
