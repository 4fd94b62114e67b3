"""A process is killed at each point between the POST and the answer: nothing that was acknowledged is lost.

Exactly one email is sent if the mail server had not accepted it yet, otherwise at most two with one Message-ID.
"""

import http.client
import json
import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from sqlalchemy import text

from portal.config import Settings
from portal.extensions import db
from tests import processes
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.due_emails import send_due_emails
from tests.smtp_peer import Action, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE
from tests.web_server import portal_url

__all__ = ["portal_url"]

pytestmark = pytest.mark.slow

QUEUE_DUE_WORK = (
    "SELECT procrastinate_defer_periodic_job_v2('default', NULL, NULL, 'portal:queue_due_work', 0, '', 1, :arguments)"
)
NOT_TAKEN = ("greeting", "ehlo", "mail", "rcpt", "data")  # at these steps the mail server has not taken the mail yet
TAKEN = "dot"


class DeadlyScript(dict[str, Action]):
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
    """A web process on the port, and a PBX that talks to it."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

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


class DoomedWeb(Web):
    """A web process of its own, which dies at a point."""

    def __init__(self, environment: dict[str, str], output: Path, point: str, key: str) -> None:
        command = ("tests.kill_points", "web", point)
        self.process = processes.start(*command, environment=environment, output=output)
        processes.wait_for(lambda: output.exists() and output.read_text().endswith("\n"))
        super().__init__(int(output.read_text()), key)

    def post_in_vain(self) -> None:
        """Assert that the process is killed before it answers."""
        assert self.post() is None
        assert processes.wait(self.process, 10) == -signal.SIGKILL


Doomed = Callable[[str], DoomedWeb]


@pytest.fixture
def doomed(environment: dict[str, str], key: str, tmp_path: Path) -> Doomed:
    """A function that starts a web process which dies at a point."""
    return lambda point: DoomedWeb(environment, tmp_path / "port", point, key)


@pytest.fixture
def healthy(portal_url: str, key: str, working_tenant: str) -> Web:
    """A web process that lives, for the PBX's repeated call."""
    port = urlsplit(portal_url).port
    assert port
    return Web(port, key)


def let_workers_take_over(app: Flask) -> None:
    """Let the leases of dead processes run out, and workers see it."""
    with app.app_context():
        sql("UPDATE deliveries SET lease_until = now() WHERE lease_until IS NOT NULL")
        sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        send_due_emails()


def message_ids(peer: SmtpPeer) -> set[bytes]:
    return {line for mail in peer.messages for line in re.findall(rb"^Message-ID: .*$", mail.content, re.MULTILINE)}


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
    assert all(mail.recipients == PEOPLE for mail in peer.messages)


@pytest.mark.parametrize("step", [*NOT_TAKEN, TAKEN])
def test_the_web_process_dies_while_it_talks_to_the_mail_server(
    app: Flask, doomed: Doomed, healthy: Web, peer: SmtpPeer, step: str
) -> None:
    web = doomed("never")
    assert web.process.pid
    peer.script = DeadlyScript(step, web.process.pid)
    web.post_in_vain()
    settle(app, healthy, peer)
    assert len(peer.messages) == 1 if step in NOT_TAKEN else len(peer.messages) <= 2


@pytest.mark.parametrize(
    ("point", "most_mails"),
    [("before commit 1", 1), ("after commit 1", 1), ("before commit 2", 2), ("after commit 2", 1)],
)
def test_the_web_process_dies_at_a_transaction(
    app: Flask, doomed: Doomed, healthy: Web, peer: SmtpPeer, point: str, most_mails: int
) -> None:
    doomed(point).post_in_vain()
    settle(app, healthy, peer)
    assert len(peer.messages) <= most_mails


def work(environment: dict[str, str], point: str, app: Flask) -> int:
    """Make all emails due, let a worker process do what there is to do, and return its exit status."""
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
        sql(QUEUE_DUE_WORK, arguments='{"timestamp": 1}')
    return processes.wait(processes.start("tests.kill_points", "worker", point, environment=environment), 60)


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
        left = text("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'portal:send_due'")
        assert db.session.scalar(left) == 0


@pytest.mark.parametrize("point", ["before commit 1", "after commit 1", "before commit 2", "after commit 2"])
def test_the_worker_dies_at_a_transaction(
    app: Flask, environment: dict[str, str], healthy: Web, peer: SmtpPeer, deferred: None, point: str
) -> None:
    assert work(environment, point, app) == -signal.SIGKILL
    settle(app, healthy, peer)
    assert len(peer.messages) <= (2 if point == "before commit 2" else 1)


def test_fifty_calls_with_one_id_make_one_event_and_one_mail(healthy: Web, peer: SmtpPeer, app: Flask) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: healthy.post(), range(50)))
    assert all(answer and answer["status"] in {"sent", "deferred"} for answer in answers)
    assert [answer and answer["duplicate"] for answer in answers].count(False) == 1
    assert len(peer.messages) == 1
    with app.app_context():
        assert sql("SELECT count(*) FROM events")[0][0] == 1
    last = healthy.post()
    assert last is not None
    assert (last["status"], last["duplicate"]) == ("sent", True)
