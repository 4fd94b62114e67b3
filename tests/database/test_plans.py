"""Each query behind an event, a page and a worker finds its rows by an index.

On few rows Postgres rightly reads whole tables, so these tests forbid it where there is another way, and look whether
there was one. `bench/growth.py` counts the same among ten million rows.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from portal.alerts import watch
from portal.config import Settings
from portal.database import fast_sql
from portal.database.engine import CONNECT_ARGS
from portal.database.scope import owner_connection
from portal.deliveries import digest, lifecycle, release, retention, retry, statistics
from portal.extensions import db
from portal.monitoring.metrics import HELD, DatabaseCollector
from portal.overview.tenant_list import SORTABLE
from portal.signals import notify_settings_changed
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.transfer import deletion, invitation_emails
from tests.conftest import TABLES
from tests.deliveries.test_welcome import USER
from tests.sql import owner_engine, sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "statements", "working_tenant"]

pytestmark = pytest.mark.slow

# Other tenants, so that to find one's own rows is worth an index.
CROWD = """
    INSERT INTO tenants (name, domain, time_zone, language)
        SELECT 'Crowd', n || '.crowd', 'UTC', 'en' FROM generate_series(1, 300) AS n;
    INSERT INTO accounts (email, password, active, fs_uniquifier)
        SELECT 'admin@' || domain, '', true, domain FROM tenants WHERE name = 'Crowd';
    INSERT INTO memberships (account_id, tenant_id)
        SELECT accounts.id, tenants.id FROM accounts JOIN tenants ON email = 'admin@' || domain ON CONFLICT DO NOTHING;
    INSERT INTO recipients (tenant_id, email) SELECT id, 'ops@' || domain FROM tenants WHERE name = 'Crowd';
    INSERT INTO notification_settings (tenant_id, event_type, enabled, audience)
        SELECT id, 'queue.call_lost', true, 'both' FROM tenants WHERE name = 'Crowd';
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
        SELECT gen_random_uuid(), id, domain, 'queue.call_lost', now(), sha256('x'), '{}' FROM tenants
        WHERE name = 'Crowd';
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, attempts, next_attempt_at,
            expires_at, last_attempt_at)
        SELECT gen_random_uuid(), tenant_id, events.id, 'recipients', '', status, reason, 1, next_attempt_at,
            now() + interval '1 day', now()
        FROM events JOIN tenants ON tenants.id = tenant_id AND name = 'Crowd', (VALUES ('sent', NULL, NULL),
            ('deferred', NULL, now() + interval '1 hour'), ('held', 'no_mail_server', NULL), ('failed', NULL, NULL)
        ) AS result (status, reason, next_attempt_at);
    INSERT INTO delivery_recipients (delivery_id, tenant_id, position, email, status)
        SELECT id, tenant_id, 0, 'ops@' || tenant_id, status FROM deliveries ON CONFLICT DO NOTHING;
    ANALYZE accounts, memberships, tenants, recipients, notification_settings, events, deliveries, delivery_recipients
"""
# A list of tenants reads the tables that have a row or two for each tenant.
OF_TENANTS = {"tenants", "pk_tenants", "mail_servers", "oauth_connections", "memberships"}
INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}

Check = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh_files(app: Flask) -> None:
    """Give the tables new files: the space that other tests' rows have left in them decides about plans."""
    with app.app_context():
        sql(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY")


@pytest.fixture
def find_by_index(app: Flask, settings: Settings, statements: Statements) -> Check:
    """A function that asserts that none of the statements reads a table whole: those noted, or those of each page.

    `reading` names tables that may be read whole, `large` limits it to tables and indexes with such a name.
    """

    def find_by_index(
        pages: dict[str, Statements] | None = None, *, reading: Collection[str] = (), large: str = ""
    ) -> None:
        asked = dict(pages or {"": dict(statements)})
        assert all(asked.values()), asked
        with app.app_context():
            sql(CROWD)
        assert settings.database_url
        with psycopg.connect(settings.database_url.replace("+psycopg", ""), **CONNECT_ARGS) as connection:
            cursor = psycopg.ClientCursor(connection)
            cursor.execute("SET enable_seqscan = off")
            for page, noted in asked.items():
                for statement, values in noted.items():
                    row = cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), values).fetchone()
                    assert row
                    whole = {name for name in reading_whole(row[0][0]["Plan"]) if re.search(large, name)}
                    assert whole <= set(reading), (page, statement)

    return find_by_index


def asked_by(browser: FlaskClient, statements: Statements, pages: Iterable[str]) -> dict[str, Statements]:
    """Open the pages, and return the statements of each."""
    asked = {}
    for page in pages:
        statements.clear()
        assert browser.get(page).status_code == 200, page
        asked[page] = dict(statements)
    return asked


def reading_whole(plan: dict[str, Any]) -> Sequence[str]:
    """Return the tables and indexes of which the plan reads more than an index leads to."""
    found = [name for part in plan.get("Plans", []) for name in reading_whole(part)]
    if plan["Node Type"] == "Seq Scan":
        found.append(plan["Relation Name"])
    if plan["Node Type"] in INDEX_SCANS and "Index Cond" not in plan:
        found.append(plan.get("Relation Name", plan["Index Name"]))
    return found


def test_an_event(post: Post, working_tenant: str, statements: Statements, find_by_index: Check) -> None:
    statements.clear()
    assert post().json["status"] == "sent"
    find_by_index()


OTHER_PAGES = (
    "overview",
    "mail-server",
    "recipients",
    "notifications",
    "appearance",
    "connect",
    "connect/status",
    "keys",
)
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
    "deliveries/updates?newest=" + "0" * 32 + "&watched={1}.0&" + EVERY_FILTER,
    "deliveries/updates?watched={1}.0&event_id={1}",
)


def test_a_tenants_pages(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, statements: Statements, find_by_index: Check
) -> None:
    post()
    with app.app_context():
        event = sql("SELECT id FROM events")[0][0]
    pages = [page.format(2**128 - 1, event) for page in (*OTHER_PAGES, *LOG, *TEMPLATES, *TRAIL)]
    find_by_index(asked_by(admin, statements, [f"/tenants/{working_tenant}/{page}" for page in pages]))


def test_the_pages_of_the_system(system: FlaskClient, acme: str, statements: Statements, find_by_index: Check) -> None:
    pages = ["overview", "keys", *TRAIL, f"audit?tenant={acme}", f"tenants/{acme}/suspend"]
    find_by_index(asked_by(system, statements, [f"/system/{page}" for page in pages]), reading=OF_TENANTS)


def test_the_lists_of_tenants(
    system: FlaskClient, post: Post, working_tenant: str, statements: Statements, find_by_index: Check
) -> None:
    post()
    queries = ["q=acme", "after=a~a", "q=acme&after=a~a", "health=working", "server=own", "administrators=none"]
    queries += [f"sort={sign}{name}" for name in SORTABLE for sign in ("", "-")]
    pages = ["tenants", "tenants.csv", *(f"tenants?{query}" for query in queries)]
    asked = asked_by(system, statements, [f"/system/{page}" for page in pages])
    for page in pages:
        assert working_tenant in system.get(f"/system/{page}").text, page
    find_by_index(asked, reading=OF_TENANTS)


def test_the_search_of_all_tenants(
    system: FlaskClient, post: Post, working_tenant: str, app: Flask, statements: Statements, find_by_index: Check
) -> None:
    post(id="an-id")
    with app.app_context():
        ((message_id, event_id),) = sql("SELECT message_id, event_id FROM deliveries")
    texts = (PEOPLE[0].upper(), "root@pbx.example", "an-id", message_id, event_id, "acme")
    asked = asked_by(system, statements, [f"/system/search?{urlencode({'q': text})}" for text in texts])
    find_by_index(asked, reading=OF_TENANTS)


# Most are of one tenant, and none of the newest: to walk through all of them looks as good as to walk through its own.
OTHERS = """
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
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
    walks = {statement: values for statement, values in statements.items() if "searched" in statement}
    with app.app_context(), owner_connection() as connection, connection.begin_nested() as taken_back:
        connection.exec_driver_sql(OTHERS)
        for statement, values in walks.items():
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
            assert "uq_events_tenant_id_id" in str(plan)
            assert "pk_events" not in str(plan)
        taken_back.rollback()
    assert walks


# Statistics of emails that were sent, and none that is due: an index of what is due looks tiny.
SENT = """
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
        SELECT gen_random_uuid(), 1, n::text, 'queue.call_lost', now(), sha256('x'), '{}'
        FROM generate_series(1, 3000) AS n;
    INSERT INTO deliveries
            (id, tenant_id, event_id, audience, message_id, status, attempts, lease_until, expires_at, last_attempt_at)
        SELECT gen_random_uuid(), 1, id, 'recipients', '', 'pending', 1, now() + interval '1 hour', now(), now()
        FROM events;
    INSERT INTO delivery_recipients (delivery_id, tenant_id, position, email, status)
        SELECT id, 1, 0, 'ops@acme.example', 'sent' FROM deliveries;
    UPDATE deliveries SET status = 'sent', lease_until = NULL
"""
DUE_INDEXES = re.compile("ix_deliveries(_tenant)?_due")


@pytest.fixture
def connection(app: Flask, settings: Settings, working_tenant: str) -> Iterator[psycopg.Connection]:
    """A connection to a database in which these emails were sent."""
    with app.app_context():
        sql(SENT)
        with owner_engine(db.engine.url).connect() as owner:
            owner.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE deliveries"))
            owner.execute(text("ANALYZE events, delivery_recipients"))
    assert settings.database_url
    url = settings.database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor, **CONNECT_ARGS) as connection:
        yield connection


def test_an_email_is_not_looked_up_among_those_that_are_due(
    connection: psycopg.Connection, post: Post, statements: Statements
) -> None:
    for kind, data in (("queue.call_lost", None), ("user.created", USER)):
        assert post(kind, data).json["status"] == "sent"
    lease = {"old_status": "deferred", "was_queued": True, "id": UUID(int=1), "attempts": 1, "delay": timedelta(0)}
    looking = {statement: values for statement, values in statements.items() if "lease_until" in statement}
    assert len(looking) > 3
    for statement, values in {**looking, retry.POSTPONE: lease}.items():
        plan = connection.execute(f"EXPLAIN {statement}".encode(), values).fetchall()
        assert not DUE_INDEXES.search(str(plan)), statement


@pytest.mark.usefixtures("connection")
def test_the_statements_of_an_event_are_planned_a_few_times(app: Flask, post: Post) -> None:
    for number in range(8):
        assert post(data=CALL_LOST | {"queue_number": str(number)}).json["status"] == "sent"
        assert post("user.created", USER | {"extension": str(number)}).json["status"] == "sent"
    with app.app_context():
        (connection,) = fast_sql._connections()._idle
        kept = connection.execute("SELECT * FROM pg_prepared_statements").fetchall()
    used = [row for row in kept if row["generic_plans"] + row["custom_plans"] >= 8]
    assert len(used) > 3
    assert all(row["custom_plans"] <= 5 for row in used), used


def release_held() -> None:
    tenant_service.add("Acme", "acme.example", "UTC")
    notify_settings_changed(1, server_changed=True)
    release.release_requested()


@pytest.mark.parametrize(
    "work",
    [
        retry.tenants_with_due,
        partial(retry.retry_next, 1),
        release_held,
        lifecycle.expire_deliveries,
        retention.delete_old_data,
        digest.ended_storms,
        statistics.update,
    ],
)
def test_what_workers_look_for(
    context: Flask, work: Callable[[], object], statements: Statements, find_by_index: Check
) -> None:
    work()
    db.session.rollback()
    find_by_index(reading={"processes"})  # there are a few


def test_the_deletion_of_a_tenant(context: Flask, statements: Statements, find_by_index: Check) -> None:
    added = tenant_service.add("Acme", "acme.example", "UTC")
    assert isinstance(added, Tenant)
    deletion.request(added)
    deletion.continue_all()
    invitation_emails.send_due()
    assert tenant_service.find("acme.example") is None
    find_by_index(reading={"tenants", "ix_invitations_due"})  # indexes of nothing but the rows that are due


def test_what_alerts_are_found_by(context: Flask, statements: Statements, find_by_index: Check) -> None:
    watch.look()
    find_by_index(large="events|deliver")  # of the other tables, each tenant and account has a few rows


def test_what_a_scrape_of_the_metrics_reads(context: Flask, statements: Statements, find_by_index: Check) -> None:
    assert list(DatabaseCollector().collect())
    del statements[str(text(HELD)).replace(":most", "%(most)s")]  # its limit is what bounds it
    find_by_index(large="events|deliver")  # of the other tables, each tenant has a few rows


def test_a_table_that_is_read_whole_is_noticed(context: Flask, statements: Statements, find_by_index: Check) -> None:
    db.session.execute(text("SELECT * FROM tenants WHERE name = 'Acme'"))
    db.session.rollback()
    with pytest.raises(AssertionError, match="tenants"):
        find_by_index()
