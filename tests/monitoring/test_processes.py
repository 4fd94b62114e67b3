"""The metrics of several web processes and a worker, as real processes: nothing is lost, and nothing counted twice."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import psutil
import pytest
from flask import Flask

from portal.config import Settings
from tests import web_server
from tests.deliveries.test_worker import worker
from tests.monitoring.conftest import TOKEN, Samples, samples
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST

pytestmark = pytest.mark.slow

queues = count(8000)  # too many events of one queue would be held
BROKEN_OFF = b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\nzz\r\n"
REPORTED = "SELECT pid FROM processes WHERE kind = 'web' ORDER BY pid"


def read(port: int) -> Samples:
    """Return the metrics of the portal at this port."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        return samples(connection.getresponse().read().decode())


def post(port: int, key: str, path: str = "/api/v1/events") -> int:
    """Post an event of a queue of its own over a connection of its own, and return the status of the response."""
    event = {"type": "queue.call_lost", "data": CALL_LOST | {"queue_number": str(next(queues))}}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(event), headers)
        return connection.getresponse().status


def pids(app: Flask) -> Sequence[int]:
    """Return the web processes that report."""
    with app.app_context():
        return [row.pid for row in sql(REPORTED)]


def test_several_processes_count_together(
    app: Flask, settings: Settings, working_tenant: str, key: str, peer: SmtpPeer
) -> None:
    options = ("--processes", "2", "--threads", "4")
    with web_server.running(settings, *options, METRICS_TOKEN=TOKEN) as port:
        wait_for(lambda: len(pids(app)) == 2)
        with ThreadPoolExecutor(8) as clients:
            assert set(clients.map(lambda _: post(port, key), range(60))) == {200}
            assert post(port, key, "/api/v1/events/") == 200, "with a slash at its end"
            assert set(clients.map(lambda _: post(port, "wrong"), range(10))) == {401}
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(BROKEN_OFF)
            assert b"incomplete" in connection.recv(1000)
        wait_for(lambda: read(port)['pbx_portal_rejected_requests_total{reason="incomplete"}'] == 1)
        wait_for(lambda: read(port)['pbx_portal_events_total{result="sent"}'] >= 61)
        wait_for(lambda: read(port)['pbx_portal_events_total{result="rejected"}'] >= 10)
        found = read(port)
        assert found['pbx_portal_events_total{result="sent"}'] == found["pbx_portal_event_seconds_count"] == 61
        assert found['pbx_portal_emails_total{outcome="sent",owner="tenant"}'] == 61
        assert found['pbx_portal_smtp_seconds_count{owner="tenant"}'] == len(peer.messages) == 61
        assert 0 < found['pbx_portal_smtp_seconds_sum{owner="tenant"}'] <= found["pbx_portal_event_seconds_sum"]
        assert found['pbx_portal_rejected_requests_total{reason="unknown_key"}'] == 10
        assert found['pbx_portal_smtp_slots{kind="web"}'] == 24
        assert {name: read(port)[name] for name in found if "_total" in name} == {
            name: value for name, value in found.items() if "_total" in name
        }, "whichever process answers"

        killed = pids(app)[0]
        psutil.Process(killed).kill()
        wait_for(lambda: killed not in pids_alive(pids(app)) and len(pids_alive(pids(app))) == 2)
        assert read(port)['pbx_portal_events_total{result="sent"}'] == 61
        assert post(port, key) == 200
    with app.app_context():
        stored = sql("SELECT value FROM metric_values WHERE name = 'pbx_portal_events' AND labels = 'sent'")
        assert stored == [(62,)], "what was counted before the end is stored at the end"
        assert pids(app) == [killed], "the others said that they end"


def pids_alive(reported: Sequence[int]) -> Sequence[int]:
    """Return those of the processes that are running."""
    return [pid for pid in reported if psutil.pid_exists(pid)]


def test_a_worker_counts_too_and_shows_the_slots_that_it_uses(
    app: Flask, settings: Settings, working_tenant: str, key: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    answer = app.test_client().post(
        "/api/v1/events",
        json={"type": "queue.call_lost", "data": CALL_LOST},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.get_json()["status"] == "deferred"
    peer.script = {}
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
    with web_server.running(settings, "--processes", "1", METRICS_TOKEN=TOKEN) as port, worker(app) as process:
        wait_for(lambda: read(port)['pbx_portal_emails_total{outcome="sent",owner="tenant"}'] == 1)
        found = read(port)
        assert found["pbx_portal_worker_up"] == 1
        assert found['pbx_portal_processes{kind="worker"}'] == found['pbx_portal_processes{kind="web"}'] == 1
        assert found['pbx_portal_smtp_slots_in_use{kind="worker"}'] == 0
        assert process.pid
        os.kill(process.pid, signal.SIGTERM)
        wait_for(lambda: read(port)['pbx_portal_processes{kind="worker"}'] == 0)
