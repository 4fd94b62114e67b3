"""The health checks: of web processes, also while Postgres is frozen, and of workers."""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from threading import Lock
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask.testing import FlaskClient

from portal import create_app
from portal.alerts import conditions
from portal.commands.workers import worker as worker_command
from portal.config import Settings
from portal.monitoring import health_checks, processes
from portal.pbx import api_keys
from tests import web_server
from tests.conftest import MIGRATIONS
from tests.deliveries.test_worker import until, worker
from tests.own_postgres import OwnPostgres, own_postgres, own_server
from tests.pbx.test_outage import frozen
from tests.processes import wait_for
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST

__all__ = ["own_postgres", "own_server"]

# Seconds within which /readyz answers, on a machine that may be slow. Who waits as long as other requests takes more.
BOUND = 2 * health_checks.TIMEOUT + 5
REPORT = """
    INSERT INTO processes (id, kind, host, pid, seen_at, smtp_slots, smtp_slots_in_use)
    VALUES (gen_random_uuid(), :kind, :host, :pid, now() - interval '2 minutes', 0, 0)
"""


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
def test_a_working_portal_is_ready(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


def test_a_portal_without_its_database_is_unavailable(settings: Settings) -> None:
    unreachable = settings.model_copy(
        update={"database_url": "postgresql+psycopg://127.0.0.1:1/portal?connect_timeout=1"}
    )
    answer = create_app(unreachable).test_client().get("/readyz")
    assert answer.status_code == 503
    assert "database" in answer.get_json()["reason"]


@contextmanager
def schema(revision: str | None) -> Iterator[None]:
    """Let the database have this revision of the schema during the block."""
    (latest,) = ScriptDirectory(MIGRATIONS).get_heads()
    sql(
        "UPDATE alembic_version SET version_num = :revision" if revision else "DELETE FROM alembic_version",
        **_or(revision),
    )
    try:
        yield
    finally:
        sql("DELETE FROM alembic_version")
        sql("INSERT INTO alembic_version VALUES (:revision)", revision=latest)


def _or(revision: str | None) -> dict[str, Any]:
    return {"revision": revision} if revision else {}


@pytest.mark.parametrize(("revision", "status"), [("0001", 503), (None, 503), ("9999", 200)])
def test_a_newer_schema_is_fine_and_an_older_one_is_not(context: Flask, revision: str | None, status: int) -> None:
    with schema(revision):
        answer = context.test_client().get("/readyz")
        assert answer.status_code == status
        assert status == 200 or "pbx-portal upgrade" in answer.get_json()["reason"]


def test_a_full_disk_is_not_ready_and_a_nearly_full_one_is(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "free_disk_share", lambda: 0.009)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["reason"]) == (503, "The disk of the database is full.")
    monkeypatch.setattr(health_checks, "free_disk_share", lambda: conditions.FULL / 2)
    assert client.get("/readyz").status_code == 200


class CountingLock:
    """A lock that knows how many wanted it."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self._lock = Lock()

    def __enter__(self) -> None:
        self.wanted.append(1)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_many_who_ask_at_once_cost_few_connections(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    lock = CountingLock()

    def ask() -> None:
        opened.append(1)
        wait_for(lambda: len(lock.wanted) == 12)

    monkeypatch.setattr(health_checks, "_asking", lock)
    monkeypatch.setattr(health_checks, "_ask_database", ask)
    with ThreadPoolExecutor(12) as clients:
        assert set(clients.map(lambda _: app.test_client().get("/readyz").status_code, range(12))) == {200}
    assert len(opened) <= 3


def get(port: int, path: str, timeout: float = 30) -> tuple[int, float]:
    """Return the status of the response to a request, and how many seconds it took."""
    began_at = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status, time.monotonic() - began_at


@pytest.mark.slow
def test_a_frozen_database_delays_readiness_little_and_liveness_not_at_all(own_postgres: OwnPostgres) -> None:
    app, server = own_postgres
    with app.app_context():
        secret = api_keys.issue(None).secret
    settings = app.extensions["settings"]
    body = json.dumps({"type": "queue.call_lost", "data": CALL_LOST})

    def post(_number: int) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
            connection.request("POST", "/api/v1/events", body, headers)
            return connection.getresponse().status

    with web_server.running(settings, "--processes", "1", "--threads", "4") as port, ThreadPoolExecutor(12) as clients:
        assert get(port, "/readyz")[0] == 200
        assert post(0) == 422
        with frozen(server):
            status, seconds = get(port, "/readyz")
            assert status == 503
            assert seconds < BOUND, "threads are free"
            posts = [clients.submit(post, number) for number in range(12)]
            time.sleep(0.5)
            asked = [get(port, "/livez") for _ in range(20)]
            assert {status for status, _ in asked} == {200}, "with all threads busy"
            assert max(seconds for _, seconds in asked) < 5, "no thread is free for twice as long"
            status, seconds = get(port, "/readyz")
            assert status == 503
            assert seconds < 5 + BOUND, "it waits for a thread, for 5 seconds at most"
            assert {future.result() for future in posts} == {503}
        wait_for(lambda: get(port, "/readyz")[0] == 200)


def check(app: Flask) -> tuple[int, str]:
    """Return the exit status and the output of `worker --check`."""
    result = app.test_cli_runner().invoke(worker_command, ["--check"])
    return result.exit_code, result.output


def test_the_check_of_workers_needs_one_that_was_alive_a_minute_ago(app: Flask) -> None:
    assert check(app) == (1, "Error: No worker is running.\n")
    with app.app_context():
        sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '50 seconds')")
    assert check(app) == (0, "A worker is running.\n")
    with app.app_context():
        sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '70 seconds'")
    assert check(app)[0] == 1


def test_the_check_fails_without_a_database(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"database_url": "postgresql+psycopg://127.0.0.1:1/portal"})
    assert check(create_app(unreachable)) == (1, "Error: The database does not respond.\n")


def test_a_silent_worker_of_this_host_hangs_only_if_its_process_is_running(app: Flask) -> None:
    with app.app_context():
        sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now())")
        here = socket.gethostname()
        for row in (
            {"kind": "worker", "host": here, "pid": 2**22 - 1},  # has ended
            {"kind": "worker", "host": "elsewhere", "pid": 1},
            {"kind": "web", "host": here, "pid": 1},
        ):
            sql(REPORT, **row)
        assert check(app)[0] == 0
        sql(REPORT, kind="worker", host=here, pid=1)
        assert check(app) == (1, "Error: A worker does nothing any more. Restart it: process 1.\n")


def test_a_process_that_got_the_id_of_a_dead_worker_does_not_hang(app: Flask) -> None:
    with app.app_context():
        sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now())")
        sql(REPORT.replace("2 minutes", "2 days"), kind="worker", host=socket.gethostname(), pid=os.getpid())
        assert check(app)[0] == 0


@pytest.mark.slow
def test_a_worker_that_was_stopped_is_seen_to_hang(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SILENT_AFTER", timedelta(seconds=8))
    with worker(app) as process:
        until(app, "SELECT count(*) FROM processes WHERE kind = 'worker'")
        assert process.pid
        until(app, "SELECT count(*) FROM procrastinate_workers")
        assert check(app)[0] == 0
        os.kill(process.pid, signal.SIGSTOP)
        try:
            wait_for(lambda: str(process.pid) in check(app)[1])
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: check(app)[0] == 0)
        process.terminate()
        process.join(20)
    with app.app_context():
        assert sql("SELECT count(*) FROM processes") == [(0,)], "it said that it ends"
