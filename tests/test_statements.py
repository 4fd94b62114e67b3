"""Statements that are a transaction of their own, and those that are a part of the session's."""

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from portal import statements
from portal.extensions import db
from tests.sql import sql

ADD = "INSERT INTO tenants (name, domain, time_zone, locale) VALUES (%(name)s, %(name)s, 'UTC', 'en') RETURNING id"
COUNT = "SELECT count(*) AS tenants FROM tenants"


def tenants() -> int:
    """Return how many tenants somebody else sees."""
    row = statements.run(COUNT, {})
    assert row is not None
    return int(row["tenants"])


def test_what_it_did_is_committed(context: Flask) -> None:
    assert statements.run(ADD, {"name": "acme"}) == {"id": 1}
    assert db.session.scalar(text(COUNT)) == 1


def test_within_a_session_it_waits_for_the_commit(context: Flask) -> None:
    assert statements.run_within_session(ADD, {"name": "acme"}) == {"id": 1}
    assert tenants() == 0
    db.session.rollback()
    statements.run_within_session(ADD, {"name": "acme"})
    db.session.commit()
    assert tenants() == 1


def test_a_connection_that_postgres_closed_is_not_used(context: Flask) -> None:
    assert tenants() == 0
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
    sql(others + "current_database()")
    assert tenants() == 0


def test_a_fault_leaves_the_connection_fit_for_use(context: Flask) -> None:
    statements.run(ADD, {"name": "acme"})
    with pytest.raises(psycopg.errors.UniqueViolation):
        statements.run(ADD, {"name": "acme"})
    assert tenants() == 1


def test_connections_are_used_again(context: Flask) -> None:
    pids = {row["pid"] for _ in range(3) if (row := statements.run("SELECT pg_backend_pid() AS pid", {}))}
    assert len(pids) == 1
