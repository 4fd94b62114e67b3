"""Postgres goes away and comes back: the PBX is asked to try again, and nothing is doubled or lost."""

import threading
import time
from collections import Counter
from itertools import count

import psutil
import pytest

from portal import database
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.lonely import Lonely, lonely
from tests.ready import CALL_LOST, read
from tests.sql import sql

__all__ = ["lonely"]


def test_the_pbx_is_asked_to_try_again_until_the_database_is_back(lonely: Lonely) -> None:
    app, server = lonely
    with app.app_context():
        tenant = directory.add("Acme", "acme.example", "UTC")
        assert isinstance(tenant, Tenant)
        secret = keys.issue(tenant).secret
    client = app.test_client()
    body, headers = {"type": "queue.call_lost", "id": "one", "data": CALL_LOST}, {"Authorization": f"Bearer {secret}"}

    server.stop()
    answer = read(client.post("/api/v1/events", json=body, headers=headers))
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 503
    page = client.get("/sign-in")
    assert "text/html" in page.content_type

    server.ensure_postgres_running()
    answer = read(client.post("/api/v1/events", json=body, headers=headers))
    assert (answer.status_code, answer.json["duplicate"]) == (200, False)
    answer = read(client.post("/api/v1/events", json=body, headers=headers))
    assert (answer.status_code, answer.json["duplicate"]) == (200, True)
    assert client.get("/healthz").status_code == 200


def test_a_frozen_database_keeps_nobody_waiting(lonely: Lonely, monkeypatch: pytest.MonkeyPatch) -> None:
    app, server = lonely
    with app.app_context():
        headers = {"Authorization": f"Bearer {keys.issue(None).secret}"}
    client = app.test_client()
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    assert client.post("/api/v1/events", json=body, headers=headers).status_code == 422
    monkeypatch.setattr(database.Connection, "answers_within", 0.3)
    postmaster = psutil.Process(server.get_pid())
    everyone = [postmaster, *postmaster.children()]
    for process in everyone:
        process.suspend()
    began = time.monotonic()
    status = client.post("/api/v1/events", json=body, headers=headers).status_code
    for process in everyone:
        process.resume()
    assert status == 503
    assert time.monotonic() - began < 8
    assert client.post("/api/v1/events", json=body, headers=headers).status_code == 422


def test_no_acknowledged_event_is_lost_when_the_database_restarts_under_load(lonely: Lonely) -> None:
    app, server = lonely
    with app.app_context():
        tenant = directory.add("Globex", "globex.example", "UTC")
        assert isinstance(tenant, Tenant)
        headers = {"Authorization": f"Bearer {keys.issue(tenant).secret}"}
    acknowledged: list[str] = []
    others: Counter[int] = Counter()
    done = threading.Event()

    def report(worker: int) -> None:
        client = app.test_client()
        for number in count():
            if done.is_set():
                return
            event_id = f"{worker}-{number}"
            body = {"type": "queue.call_lost", "id": event_id, "data": CALL_LOST}
            status = client.post("/api/v1/events", json=body, headers=headers).status_code
            if status == 200:
                acknowledged.append(event_id)
            else:
                others[status] += 1

    threads = [threading.Thread(target=report, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.4)
        server.stop()
        time.sleep(0.2)
        server.ensure_postgres_running()
    before = len(acknowledged)
    time.sleep(0.5)
    done.set()
    for thread in threads:
        thread.join()
    with app.app_context():
        recorded = {row[0] for row in sql("SELECT event_id FROM events")}
    assert set(acknowledged) <= recorded
    assert len(acknowledged) > before > 0, "it went on by itself"
    assert set(others) == {503}
