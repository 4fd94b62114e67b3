"""Connections to Postgres of a worker with much to do, and what it gives back."""

import os
from collections import Counter

import pytest
from flask import Flask

from portal.config import Settings
from tests import processes, web_server
from tests.deliveries.test_backlog import AddDue, add_due
from tests.smtp_peer import SlowReply, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import peer, working_tenant

__all__ = ["add_due", "peer", "working_tenant"]

pytestmark = pytest.mark.slow

CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted' AND datname = current_database()
"""
COUNT_SENT = "SELECT count(*) FROM deliveries WHERE status = 'sent'"


def test_a_worker_at_work(app: Flask, settings: Settings, add_due: AddDue, peer: SmtpPeer) -> None:
    add_due(60)
    peer.script = {"dot": SlowReply("250 2.0.0 queued", 0.02)}
    environment = {**os.environ, **web_server.variables(settings, 80), "PGAPPNAME": "counted"}
    worker = processes.start("portal", "worker", environment=environment)
    seen: Counter[int] = Counter()

    def is_done() -> bool:
        seen[sql(CONNECTIONS)[0][0]] += 1
        return bool(sql(COUNT_SENT)[0][0] == 60)

    try:
        with app.app_context():
            processes.wait_for(is_done)
    finally:
        worker.terminate()
        worker.join(60)
    usual, _ = seen.most_common(1)[0]
    assert 1 < usual <= 8, "docs/operation.md"
