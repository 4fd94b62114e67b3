"""A worker as an operator runs it: it outlives its database, and ends when it is asked to."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.deliveries import worker as deliveries_worker
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests import processes
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.own_postgres import OwnPostgres, own_postgres, own_server
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, entered

__all__ = ["own_postgres", "own_server"]


@contextmanager
def worker(app: Flask) -> Iterator[ForkServerProcess]:
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
    process = processes.start("portal", "worker", environment=environment)
    try:
        yield process
    finally:
        process.kill()


def report_a_lost_call(app: Flask, peer: SmtpPeer) -> None:
    """Have a tenant's mail deferred, and due."""
    with app.app_context():
        tenant = tenant_service.add("Acme", "acme.example", "UTC")
        assert isinstance(tenant, Tenant)
        enter_scope(tenant.id)
        mail_server_settings.save(tenant.id, entered(peer.port))
        recipients.replace(tenant, ["ops@acme.example"])
        settings.set_enabled(tenant, EVENT_TYPES, on=True)
        secret = api_keys.issue(tenant).secret
    peer.script = {"dot": "451 4.3.0 later"}
    body, headers = {"type": "queue.call_lost", "data": CALL_LOST}, {"Authorization": f"Bearer {secret}"}
    answer = app.test_client().post("/api/v1/events", json=body, headers=headers)
    assert answer.get_json()["status"] == "deferred"
    peer.script = {}
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")


@pytest.mark.slow
def test_a_worker_goes_on_after_its_database_was_away(own_postgres: OwnPostgres) -> None:
    app, server = own_postgres
    with SmtpPeer() as peer, worker(app) as process:
        until(app, "SELECT count(*) FROM procrastinate_workers")
        server.stop()
        time.sleep(0.5)
        server.ensure_postgres_running()
        report_a_lost_call(app, peer)
        until(app, "SELECT count(*) FROM deliveries WHERE status = 'sent'")
        assert len(peer.messages) == 1
        process.terminate()
        assert processes.wait(process, 10) == 0


def test_tasks_have_the_same_names_each_time_that_a_worker_connects(app: Flask) -> None:
    for _ in range(2):
        deliveries_worker.run(app, concurrency=1, wait=False)
        names = {each.rpartition(":")[0] for each in deliveries_worker.job_queue.tasks if "builtin" not in each}
        assert names == {"portal"}, "jobs that wait would not be found"


def until(app: Flask, count: str) -> None:
    """Wait until the query counts something."""
    end = time.monotonic() + 60
    with app.app_context():
        while not sql(count)[0][0]:
            db.session.rollback()
            assert time.monotonic() < end, count
            time.sleep(0.1)
