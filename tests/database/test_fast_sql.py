"""Statements that are one transaction each, and those in the session's transaction."""

import os
import time

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from portal.database import fast_sql
from portal.database.scope import enter_scope
from portal.extensions import db
from tests.processes import wait_for
from tests.sql import sql

ADD = "INSERT INTO tenants (name, domain, time_zone, language) VALUES (%(name)s, %(name)s, 'UTC', 'en') RETURNING id"
COUNT = "SELECT count(*) AS tenants FROM tenants"
PID = "SELECT pg_backend_pid() AS pid"


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


def test_connections_in_the_scope_are_preferred(context: Flask) -> None:
    pids = []
    for scope in (1, 2, 1, 2):
        enter_scope(scope)
        wait_for(lambda: not fast_sql._pool()._growing)  # while it opens a connection, it gives any other one
        pids.append(backend_pid())
    assert pids[:2] == pids[2:]
    assert pids[0] != pids[1]


def test_nobody_waits_long_for_a_database_that_refuses_connections(
    context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(context.config, "SQLALCHEMY_DATABASE_URI", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setitem(context.extensions, "fast_sql", None)
    fast_sql.init_app(context)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            fast_sql.run(PID, {})
    fast_sql.dispose()
    assert time.monotonic() - began < fast_sql.CONNECTION_TIMEOUT


def test_each_process_has_connections_of_its_own(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    here = backend_pid()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 0)
        assert backend_pid() != here
        fast_sql.dispose()
    assert backend_pid() == here
