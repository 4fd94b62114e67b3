"""Statements that are one transaction each, and those in the session's transaction."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from portal.database import fast_sql
from portal.database.engine import PostgresConnection
from portal.database.scope import EVERY_TENANT
from portal.extensions import db
from tests.sql import sql

ADD = "INSERT INTO tenants (name, domain, time_zone, language) VALUES (%(name)s, %(name)s, 'UTC', 'en') RETURNING id"
COUNT = "SELECT count(*) AS tenants FROM tenants"
PID = "SELECT pg_backend_pid() AS pid"
SCOPE = "SELECT pg_backend_pid() AS pid, current_setting('portal.tenant') AS scope"


def count_tenants() -> int:
    """Return how many tenants another transaction sees."""
    row = fast_sql.run(COUNT, {})
    assert row is not None
    return int(row["tenants"])


def backend_pid() -> int:
    """Return the process of Postgres that runs the statements in this scope."""
    row = fast_sql.run(PID, {})
    assert row is not None
    return int(row["pid"])


def test_a_statement_is_committed(context: Flask) -> None:
    assert fast_sql.run(ADD, {"name": "acme"}) == {"id": 1}
    assert db.session.scalar(text(COUNT)) == 1


def test_a_statement_within_the_session_is_committed_with_it(context: Flask) -> None:
    assert fast_sql.run_within_session(ADD, {"name": "acme"}) == {"id": 1}
    assert count_tenants() == 0
    db.session.rollback()
    fast_sql.run_within_session(ADD, {"name": "acme"})
    db.session.commit()
    assert count_tenants() == 1


def test_a_connection_that_postgres_closed_is_replaced(context: Flask) -> None:
    assert count_tenants() == 0
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
    sql(others + "current_database()")
    assert count_tenants() == 0


def test_a_connection_survives_a_failed_statement(context: Flask) -> None:
    fast_sql.run(ADD, {"name": "acme"})
    with pytest.raises(psycopg.errors.UniqueViolation):
        fast_sql.run(ADD, {"name": "acme"})
    assert count_tenants() == 1


def test_connections_are_reused(context: Flask) -> None:
    assert len({backend_pid() for _ in range(3)}) == 1


def test_a_connection_serves_one_scope_after_the_other(context: Flask) -> None:
    scopes = ["1", "2", "1", EVERY_TENANT, "2"]
    seen = [fast_sql.run(SCOPE, {}, scope=scope) for scope in scopes]
    assert [row and row["scope"] for row in seen] == scopes
    assert len({row and row["pid"] for row in seen}) == 1


def test_after_a_failed_statement_a_connection_is_put_into_its_scope_again(context: Flask) -> None:
    fast_sql.run(SCOPE, {}, scope="1")
    with pytest.raises(psycopg.errors.DivisionByZero):
        fast_sql.run("SELECT 1 / 0", {}, scope="2")
    for scope in ("2", "1"):
        row = fast_sql.run(SCOPE, {}, scope=scope)
        assert row is not None
        assert row["scope"] == scope


def test_more_statements_than_connections_wait_for_each_other(context: Flask) -> None:
    def sleep(_: int) -> int:
        with context.app_context():
            row = fast_sql.run("SELECT pg_backend_pid() AS pid, pg_sleep(0.05)", {}, scope=EVERY_TENANT)
            return int(row["pid"]) if row else 0

    at_once = 3 * fast_sql.MAX_CONNECTIONS
    with ThreadPoolExecutor(at_once) as threads:
        assert 1 < len(set(threads.map(sleep, range(at_once)))) <= fast_sql.MAX_CONNECTIONS


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, psycopg.OperationalError])
def test_a_connection_that_cannot_be_opened_leaves_its_place_to_others(
    context: Flask, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    fast_sql.dispose()
    monkeypatch.setattr(fast_sql, "CONNECTION_TIMEOUT", 0.1)
    with monkeypatch.context() as failing:
        failing.setattr(PostgresConnection, "connect", fail)
        for _ in range(fast_sql.MAX_CONNECTIONS):
            with pytest.raises(error):
                fast_sql.run(PID, {})
    assert backend_pid()


@pytest.mark.parametrize("scope", ["1", "2"], ids=["same scope", "another scope"])
def test_the_answer_to_an_interrupted_statement_is_not_taken_for_that_of_the_next(context: Flask, scope: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fast_sql.run(SCOPE, {}, scope="1")
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            fast_sql.run("SELECT 'late' AS scope FROM pg_sleep(0.5)", {}, scope=scope)
    finally:
        signal.signal(signal.SIGALRM, previous)
    row = fast_sql.run(SCOPE, {}, scope="3")
    assert row is not None
    assert row["scope"] == "3"


def test_nobody_waits_long_for_a_database_that_refuses_connections(
    context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(context.config, "SQLALCHEMY_DATABASE_URI", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setitem(context.extensions, "fast_sql", None)
    monkeypatch.setattr(fast_sql, "CONNECTION_TIMEOUT", 60)
    fast_sql.init_app(context)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            fast_sql.run(PID, {})
    fast_sql.dispose()
    assert time.monotonic() - began < fast_sql.CONNECTION_TIMEOUT / 2


def test_each_process_has_connections_of_its_own(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    here = backend_pid()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 0)
        assert backend_pid() != here
        fast_sql.dispose()
    assert backend_pid() == here
