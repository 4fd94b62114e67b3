"""A worker as an operator runs it: it outlives its database, and ends when it is asked to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from portal.config import ROOT
from portal.database import enter_scope
from portal.deliveries import jobs
from portal.extensions import db
from portal.mail_servers import settings as mail_server_settings
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.lonely import Lonely, lonely
from tests.ready import CALL_LOST, entered
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["lonely"]


@contextmanager
def worker(app: Flask) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker beside the portal during the block."""
    environment = {
        **os.environ,
        "PORTAL_ENV": "production",
        "PORTAL_URL": "http://portal.test",
        "SECRET_KEY": TEST_SECRET,
        "ENCRYPTION_KEYS": TEST_KEY,
        "SMTP_ALLOWED_NETWORKS": "127.0.0.0/8",
        "DATABASE_URL": app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", ""),
    }
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "worker"]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def report_a_lost_call(app: Flask, peer: SmtpPeer) -> None:
    """Have a tenant's mail deferred, and due."""
    with app.app_context():
        tenant = directory.add("Acme", "acme.example", "UTC")
        assert isinstance(tenant, Tenant)
        enter_scope(tenant.id)
        mail_server_settings.save(tenant.id, entered(peer.port))
        recipients.replace(tenant, ["ops@acme.example"])
        switches.turn(tenant, KINDS, on=True)
        secret = keys.issue(tenant).secret
    peer.script = {"dot": "451 4.3.0 later"}
    body, headers = {"type": "queue.call_lost", "data": CALL_LOST}, {"Authorization": f"Bearer {secret}"}
    answer = app.test_client().post("/api/v1/events", json=body, headers=headers)
    assert answer.get_json()["status"] == "deferred"
    peer.script = {}
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")


def test_a_worker_goes_on_after_its_database_was_away(lonely: Lonely) -> None:
    app, server = lonely
    with SmtpPeer() as peer, worker(app) as process:
        until(app, "SELECT count(*) FROM procrastinate_workers")
        server.stop()
        time.sleep(0.5)
        server.ensure_postgres_running()
        report_a_lost_call(app, peer)
        until(app, "SELECT count(*) FROM deliveries WHERE status = 'sent'")
        assert len(peer.mails) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_tasks_have_the_same_names_each_time_that_a_worker_connects(app: Flask) -> None:
    for _ in range(2):
        jobs.run(app, concurrency=1, wait=False)
        names = {each.rpartition(":")[0] for each in jobs.queue.tasks if "builtin" not in each}
        assert names == {"portal"}, "jobs that wait would not be found"


def until(app: Flask, count: str) -> None:
    """Wait until the query counts something."""
    end = time.monotonic() + 30
    with app.app_context():
        while not sql(count)[0][0]:
            db.session.rollback()
            assert time.monotonic() < end, count
            time.sleep(0.1)
