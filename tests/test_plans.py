"""Each query behind an event, a page and a worker finds its rows by an index.

On few rows Postgres rightly reads whole tables, so these tests forbid it where there is another way, and look whether
there was one. `bench/growth.py` counts the same among ten million rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from portal.config import Settings
from portal.database import CONNECT_ARGS, owner_connection
from portal.deliveries import endings, retry, storms, tally
from portal.extensions import db
from tests.noted import Statements, statements
from tests.ready import Post, key, peer, post, ready
from tests.sql import sql

__all__ = ["key", "peer", "post", "ready", "statements"]

# Other tenants, so that to find one's own rows is worth an index.
CROWD = """
    INSERT INTO tenants (name, domain, time_zone, locale)
        SELECT 'Crowd', n || '.crowd', 'UTC', 'en' FROM generate_series(1, 300) AS n;
    INSERT INTO accounts (email, password, active, fs_uniquifier)
        SELECT 'admin@' || domain, '', true, domain FROM tenants WHERE name = 'Crowd';
    INSERT INTO memberships (account_id, tenant_id)
        SELECT accounts.id, tenants.id FROM accounts JOIN tenants ON email = 'admin@' || domain ON CONFLICT DO NOTHING;
    INSERT INTO recipients (tenant_id, address) SELECT id, 'ops@' || domain FROM tenants WHERE name = 'Crowd';
    INSERT INTO notification_switches (tenant_id, event_type, enabled, audience)
        SELECT id, 'queue.call_lost', true, 'both' FROM tenants WHERE name = 'Crowd';
    ANALYZE accounts, memberships, tenants, recipients, notification_switches
"""
INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}

Check = Callable[[], None]


@pytest.fixture
def find_by_index(app: Flask, settings: Settings, statements: Statements) -> Check:
    """A function that asserts that none of the statements reads a table whole."""

    def find_by_index() -> None:
        noted = dict(statements)
        assert noted
        with app.app_context():
            sql(CROWD)
        assert settings.database_url
        with psycopg.connect(settings.database_url.replace("+psycopg", ""), **CONNECT_ARGS) as connection:
            cursor = psycopg.ClientCursor(connection)
            cursor.execute("SET enable_seqscan = off")
            for statement, values in noted.items():
                row = cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), values).fetchone()
                assert row
                assert reading_whole(row[0][0]["Plan"]) == [], statement

    return find_by_index


def reading_whole(plan: dict[str, Any]) -> Sequence[str]:
    """Return the tables and indexes of which the plan reads more than an index leads to."""
    found = [name for part in plan.get("Plans", []) for name in reading_whole(part)]
    if plan["Node Type"] == "Seq Scan":
        found.append(plan["Relation Name"])
    if plan["Node Type"] in INDEX_SCANS and "Index Cond" not in plan:
        found.append(plan["Index Name"])
    return found


def test_an_event(post: Post, ready: str, statements: Statements, find_by_index: Check) -> None:
    statements.clear()
    assert post().json["status"] == "sent"
    find_by_index()


OTHER_PAGES = ("overview", "mail-server", "recipients", "notifications", "brand", "connect", "connect/arrival", "keys")
TEMPLATES = ("templates", "templates/queue.call_lost?before={0:032x}")
TRAIL = ("audit", "audit?person=admin%40acme.example&action=account.signed_in&since=2026-01-01T00:00", "audit.csv")


EVERY_FILTER = (
    "event=queue.call_lost&outcome=sent&recipient=ops&queue=8000&since=2026-01-01&until=2030-01-01&q=%2B44 20"
)
LOG = (
    "deliveries",
    "deliveries?before={0:032x}",
    f"deliveries?{EVERY_FILTER}",
    f"deliveries.csv?{EVERY_FILTER}",
    "deliveries/{1}",
    "deliveries/news?newest=" + "0" * 32 + "&seen={1}.0&" + EVERY_FILTER,
    "deliveries/news?seen={1}.0&on={1}",
)


@pytest.mark.parametrize("page", [*OTHER_PAGES, *LOG, *TEMPLATES, *TRAIL])
def test_a_tenants_pages(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    ready: str,
    page: str,
    statements: Statements,
    find_by_index: Check,
) -> None:
    post()
    with app.app_context():
        event = sql("SELECT id FROM events")[0][0]
    statements.clear()
    assert admin.get(f"/tenants/{ready}/{page.format(2**128 - 1, event)}").status_code == 200
    find_by_index()


def test_the_overview_of_the_system(system: FlaskClient, statements: Statements, find_by_index: Check) -> None:
    statements.clear()
    assert system.get("/system/overview").status_code == 200
    find_by_index()


# Most are of one tenant, and none of the newest: to walk through all of them looks as good as to walk through its own.
OTHERS = """
    INSERT INTO events (id, tenant_id, event_id, type, occurred_at, fingerprint, data)
        SELECT overlay('01900000-0000-7000-8000-000000000000' PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid,
            1 + (n > 2700)::int, n::text, 'queue.call_lost', now(), sha256('x'), '{"queue_number": "1"}'
        FROM generate_series(1, 3000) AS n;
    ANALYZE events
"""


def test_a_tenants_events_are_walked_and_nobody_elses(
    app: Flask, acme: str, globex: str, admin: FlaskClient, statements: Statements
) -> None:
    statements.clear()
    assert admin.get(f"/tenants/{acme}/deliveries?event=user.created").status_code == 200
    walks = {statement: values for statement, values in statements.items() if "looked" in statement}
    with app.app_context(), owner_connection() as connection, connection.begin_nested() as taken_back:
        connection.exec_driver_sql(OTHERS)
        for statement, values in walks.items():
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
            assert "uq_events_tenant_id_id" in str(plan)
            assert "pk_events" not in str(plan)
        taken_back.rollback()
    assert walks


def test_the_systems_keys(system: FlaskClient, statements: Statements, find_by_index: Check) -> None:
    statements.clear()
    assert system.get("/system/keys").status_code == 200
    find_by_index()


@pytest.mark.parametrize("query", ["", "?q=acme", "?after=a", "?q=acme&after=a"])
def test_the_tenants(system: FlaskClient, acme: str, query: str, statements: Statements, find_by_index: Check) -> None:
    statements.clear()
    assert acme in system.get(f"/system/tenants{query}").get_data(as_text=True)
    find_by_index()


@pytest.mark.parametrize("page", TRAIL)
def test_the_audit_trail_of_the_system(
    system: FlaskClient, acme: str, page: str, statements: Statements, find_by_index: Check
) -> None:
    statements.clear()
    assert system.get(f"/system/{page}").status_code == 200
    find_by_index()


@pytest.mark.parametrize("work", [partial(retry.due, 10), endings.expire, endings.purge, storms.over, tally.count])
def test_what_workers_look_for(
    context: Flask, work: Callable[[], object], statements: Statements, find_by_index: Check
) -> None:
    work()
    db.session.rollback()
    find_by_index()


def test_a_table_that_is_read_whole_is_noticed(context: Flask, statements: Statements, find_by_index: Check) -> None:
    db.session.execute(text("SELECT * FROM tenants WHERE name = 'Acme'"))
    db.session.rollback()
    with pytest.raises(AssertionError, match="tenants"):
        find_by_index()
