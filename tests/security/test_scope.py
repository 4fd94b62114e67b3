"""Row level security: with the tenant's scope forgotten, or another's in force, the rows are not there."""

import asyncio
import re
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.database import fast_sql as portal_statements
from portal.database.engine import CONNECT_ARGS, ROLE
from portal.database.scope import NO_TENANT, TenantOwned, enter_scope, every_tenant, owner_connection
from portal.deliveries import worker
from portal.events.types import EVENT_TYPES
from portal.extensions import Base, db
from portal.mail_servers import service as mail_server_service
from portal.mail_templates import versions
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.tenants import service as tenant_service
from tests.pages import PASSWORD, TENANT_PAGES
from tests.sql import sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "statements", "working_tenant"]

OWNED = sorted(str(each.local_table) for each in Base.registry.mappers if issubclass(each.class_, TenantOwned))
SEEN = [each for each in OWNED if each != "audit_entries"]  # which is looked at in test_audit.py
MOVING = [each for each in SEEN if each != "mail_templates"]  # whose rows nobody changes: test_templates.py
ATTEMPT = """
    INSERT INTO delivery_attempts (delivery_id, number, tenant_id, attempted_at, recipient_results)
    SELECT id, 1, tenant_id, now(), '[]' FROM deliveries LIMIT 1
"""
USAGE = "INSERT INTO shared_server_usage SELECT id, now(), 1, now(), 1 FROM tenants WHERE domain = 'acme.example'"
CONNECTION = """
    INSERT INTO oauth_connections (tenant_id, provider, grant_type)
    SELECT id, 'google', 'authorization_code' FROM tenants WHERE domain = 'acme.example'
"""
INVITATION = """
    INSERT INTO invitations (tenant_id, email, role, token_hash, invited_by, expires_at)
    SELECT id, 'bob@acme.example', 'viewer', 'hash', 'Ann', now() FROM tenants WHERE domain = 'acme.example'
"""
ALERT = """
    INSERT INTO alerts (tenant_id, kind, subject, details, began_at, tell_at)
    SELECT id, 'silence', '', '{}', now(), now() FROM tenants WHERE domain = 'acme.example'
"""
STATS = "INSERT INTO daily_stats SELECT id, now(), now(), 'sent', 1 FROM tenants WHERE domain = 'acme.example'"
WELCOME = {"name": "Ann", "extension_number": "101", "extension_password": "s3cret", "sip_domain": "acme.example"}


def count(table: str) -> int:
    """Return how many rows of a table the session sees by a query that names no tenant."""
    return int(db.session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


@pytest.fixture
def filled(app: Flask, post: Post, working_tenant: str, globex: str) -> tuple[int, int]:
    """Acme, with a row in every table that belongs to tenants, and Globex, with none."""
    assert post("user.created", {**WELCOME, "email": "ann@acme.example"}).status_code == 200
    assert post().json["status"] == "sent"
    assert post("queue.call_lost", {}).status_code == 422
    with app.app_context():
        sql(ATTEMPT)
        sql(USAGE)
        sql(CONNECTION)
        sql(INVITATION)
        sql(ALERT)
        sql(STATS)
        acme, other = tenant_service.find(working_tenant), tenant_service.find(globex)
        assert acme is not None
        assert other is not None
        account = account_service.add("admin@acme.example", PASSWORD, tenant_id=acme.id)
        assert isinstance(account, Account)
        enter_scope(acme.id)
        mail_server_service.dismiss_reminder(acme, account)
        words = TemplateSource(TemplateFormat.MARKDOWN, "Lost", "A call.")
        assert isinstance(versions.save_version(acme, EVENT_TYPES["queue.call_lost"], words, None), MailTemplate)
        return acme.id, other.id


def test_every_table_of_tenants_is_under_its_policy(context: Flask) -> None:
    query = """
        SELECT relname FROM pg_class JOIN pg_policies ON tablename = relname
        WHERE relrowsecurity AND relforcerowsecurity AND policyname = 'tenant_in_scope' AND cmd = 'ALL'
            AND permissive = 'PERMISSIVE' AND roles = '{public}'
    """
    assert sorted(db.session.scalars(text(query))) == OWNED
    assert db.session.scalar(text("SELECT count(*) FROM pg_policies")) == len(OWNED)


def test_the_applications_role_owns_nothing_and_may_not_much(context: Flask) -> None:
    role = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin FROM pg_roles WHERE rolname = :role"
    assert set(db.session.execute(text(role), {"role": ROLE}).one()) == {False}
    owned = "SELECT count(*) FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE rolname = :role"
    assert db.session.scalar(text(owned), {"role": ROLE}) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant_in_scope ON events",
        "TRUNCATE recipients",
        "UPDATE alembic_version SET version_num = '0001'",
        "CREATE OR REPLACE FUNCTION tenant_in_scope() RETURNS int RETURN 0",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_the_applications_role_cannot_change_the_house(context: Flask, statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner|must be superuser"):
        db.session.execute(text(statement))


def test_web_statements_and_worker_run_as_that_role(context: Flask) -> None:
    who = "SELECT current_user AS who"
    assert db.session.scalar(text(who)) == ROLE
    assert portal_statements.run(who, {}) == {"who": ROLE}
    connector = worker.job_connector(context)

    async def of_the_worker() -> Any:
        await connector.open_async()
        found = await connector.execute_query_one_async(who)
        await connector.close_async()
        return found

    assert asyncio.run(of_the_worker()) == {"who": ROLE}


def test_rows_are_seen_in_their_own_scope_only(filled: tuple[int, int], app: Flask, subtests: pytest.Subtests) -> None:
    acme, globex = filled
    for table in SEEN:
        with subtests.test(str(table)), app.app_context():
            assert count(table) == 0
            with every_tenant():
                everything = count(table)
            assert everything > 0
            assert count(table) == 0
            enter_scope(acme)
            assert count(table) == everything
            enter_scope(globex)
            assert count(table) == 0
            with pytest.raises(ZeroDivisionError), every_tenant():
                raise ZeroDivisionError
            assert count(table) == 0


def test_rows_of_others_are_neither_changed_nor_deleted(
    filled: tuple[int, int], context: Flask, subtests: pytest.Subtests
) -> None:
    enter_scope(filled[1])
    for table in MOVING:
        for statement in (f"UPDATE {table} SET tenant_id = {filled[1]}", f"DELETE FROM {table}"):
            with subtests.test(statement):
                assert db.session.execute(text(statement)).rowcount == 0  # type: ignore[attr-defined]


def test_a_row_is_not_written_into_another_tenant(filled: tuple[int, int], context: Flask) -> None:
    enter_scope(filled[1])
    insert = text("INSERT INTO recipients (tenant_id, email) VALUES (:tenant, 'thief@globex.example')")
    with pytest.raises(ProgrammingError, match="row-level security"):
        db.session.execute(insert, {"tenant": filled[0]})
    db.session.rollback()
    db.session.execute(insert, {"tenant": filled[1]})
    with pytest.raises(ProgrammingError, match="row-level security"):
        db.session.execute(text(f"UPDATE recipients SET tenant_id = {filled[0]}"))


def test_the_scope_ends_with_the_transaction(filled: tuple[int, int], context: Flask) -> None:
    enter_scope(filled[0])
    assert count("events") == 2
    connection = db.session.connection().connection.driver_connection
    db.session.commit()
    assert isinstance(connection, psycopg.Connection)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    connection.rollback()


def test_each_statement_is_in_the_scope_in_force_whatever_its_connection_was_used_for(
    filled: tuple[int, int], context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_statements, "MAX_CONNECTIONS", 1)
    portal_statements.dispose()
    events = "SELECT count(*) AS events, pg_backend_pid() AS pid FROM events"
    pids = set()
    for scope, expected in ((filled[0], 2), (filled[1], 0), (filled[0], 2), (NO_TENANT, 0), (filled[0], 2)):
        enter_scope(scope)
        for _ in range(2):
            row = portal_statements.run(events, {})
            assert row
            assert row["events"] == expected
            pids.add(row["pid"])
    assert len(pids) == 1


def test_a_scope_that_failed_to_be_told_is_told_again(
    filled: tuple[int, int], context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_statements, "MAX_CONNECTIONS", 1)
    portal_statements.dispose()
    enter_scope(filled[0])
    assert portal_statements.run("SELECT count(*) AS events FROM events", {}) == {"events": 2}
    enter_scope(filled[1])
    with pytest.raises(psycopg.errors.DivisionByZero):
        portal_statements.run("SELECT 1 / 0", {})
    assert portal_statements.run("SELECT count(*) AS events FROM events", {}) == {"events": 0}
    enter_scope(filled[0])
    assert portal_statements.run("SELECT count(*) AS events FROM events", {}) == {"events": 2}


@pytest.mark.slow
def test_no_statement_of_the_portal_finds_anything_with_the_scope_forgotten(
    app: Flask,
    admin: FlaskClient,
    system: FlaskClient,
    filled: tuple[int, int],
    post: Post,
    working_tenant: str,
    statements: Statements,
) -> None:
    statements.clear()
    for browser in (admin, system):
        for page in TENANT_PAGES:
            assert browser.get(f"/tenants/{working_tenant}/{page}").status_code == 200
        assert browser.get(f"/tenants/{working_tenant}/notifications/queue.call_lost").status_code in {200, 404, 405}
    post("user.created", {**WELCOME, "email": "ann@acme.example"})
    post()
    worker.run(app, concurrency=2, wait=False)
    of_tenants = re.compile(rf"\b({'|'.join(OWNED)})\b")
    tried = {statement: values for statement, values in statements.items() if of_tenants.search(statement)}
    assert len(tried) > 15
    with app.app_context(), owner_connection() as owner:
        address = owner.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with psycopg.connect(address, **CONNECT_ARGS) as connection:
        for statement, values in tried.items():
            assert found(connection, statement, values) == 0, statement


def found(connection: psycopg.Connection[Any], statement: str, values: Any) -> int | None:
    """Return how many rows a statement finds or changes, and leave all as it was. What counts or writes finds none."""
    try:
        cursor = connection.execute(statement.encode(), values)
        rows = cursor.fetchall() if cursor.description else []
        return sum(any(value not in (None, 0, False) for value in row) for row in rows)
    except psycopg.errors.InsufficientPrivilege as refused:  # an INSERT, which the policy keeps out
        return 0 if "row-level security" in str(refused) else None
    finally:
        connection.rollback()
