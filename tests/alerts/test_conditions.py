"""What is found to be wrong, for one tenant, for the system and for all of them at once."""

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.alerts import conditions, recording
from portal.alerts.conditions import EVERYONE, AlertKind, Condition
from portal.config import Settings
from portal.database.scope import enter_scope
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.concurrency import blocked_until_done
from tests.overview.page_text import page_text
from tests.smtp_peer import Fault, SmtpPeer, closed_port
from tests.sql import sql
from tests.tenant_fixtures import Post, entered

WORKER = "INSERT INTO procrastinate_workers DEFAULT VALUES"


def emailed() -> set[tuple[int | None, str, str]]:
    """Return the alerts about which administrators are emailed now."""
    recording.record_all()
    rows = sql("SELECT tenant_id, kind, subject FROM alerts WHERE tell_at <= now() AND absent_since IS NULL")
    return {(tenant_id, kind, subject) for tenant_id, kind, subject in rows}


@pytest.fixture(autouse=True)
def worker(app: Flask) -> None:
    with app.app_context():
        sql(WORKER)


def test_a_server_that_rejects_its_settings(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    with app.app_context():
        assert emailed() == set()
        sql("UPDATE mail_servers SET rejected_at = now() - interval '14 minutes', pause_reason = 'Wrong password.'")
        assert emailed() == set()
        sql("UPDATE mail_servers SET rejected_at = now() - interval '15 minutes'")
        assert emailed() == {(1, "mail_server", "")}
        mail_server_service.save(1, entered(peer.port))
        assert emailed() == set()


def test_a_server_that_does_not_respond_until_it_takes_an_email(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"greeting": Fault.DROP}
    assert post().json["status"] == "deferred"
    with app.app_context():
        sql("UPDATE mail_servers SET failing_since = failing_since - interval '20 minutes', paused_until = NULL")
        sql("UPDATE mail_servers SET last_failed_at = failing_since")
        assert emailed() == set(), "it failed once, twenty minutes ago: nobody has tried since"
    assert post().json["status"] == "deferred"
    with app.app_context():
        assert emailed() == {(1, "mail_server", "")}
        assert sql("SELECT began_at < now() - interval '19 minutes' FROM alerts")[0][0]
        sql("UPDATE mail_servers SET paused_until = NULL")
    peer.script = {}
    assert post().json["status"] == "sent"
    with app.app_context():
        assert emailed() == set()
        assert sql("SELECT failing_since, last_failed_at FROM mail_servers")[0] == (None, None)


def test_a_server_that_fails_again_after_a_success_begins_anew(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    assert post().json["status"] == "sent"
    with app.app_context():
        sql("UPDATE mail_servers SET failing_since = now() - interval '1 hour', last_failed_at = now()")
        assert emailed() == set()
        assert sql("SELECT failing_since = last_failed_at FROM mail_servers")[0][0]


def test_the_systems_server_works_again_when_it_takes_a_tenants_email(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("DELETE FROM mail_servers")
        mail_server_service.save(None, entered(peer.port))
        mail_server_service.share(True)
        failing = "UPDATE mail_servers SET failing_since = now() - interval '1 hour', last_failed_at = now()"
        sql(failing)
        assert emailed() == {(None, "mail_server", "")}
        sql(f"{failing} - interval '1 minute'")
    assert post().json["status"] == "sent"
    with app.app_context():
        assert emailed() == set()


@pytest.mark.parametrize(
    ("reason", "is_emailed"),
    [
        ("no_mail_server", True),
        ("no_recipients", True),
        ("mail_server_rejected", True),
        ("may_have_been_sent", True),
        ("shared_server_limit", True),
        ("switched_off", True),
        ("no_recipient_wants_it", True),
        ("throttled", False),
        ("tenant_suspended", False),
    ],
)
def test_held_emails(app: Flask, post: Post, working_tenant: str, reason: str, is_emailed: bool) -> None:
    post()
    held = "UPDATE deliveries SET status = 'held', reason = :reason, last_attempt_at = now() - :age * interval '1 min'"
    with app.app_context():
        sql(held, reason=reason, age=59)
        assert emailed() == set()
        sql(held, reason=reason, age=60)
        assert emailed() == ({(1, "held", reason)} if is_emailed else set())


def test_held_emails_behind_many_others(
    app: Flask, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "MAX_HELD", 2)
    for _ in range(4):
        post()
    held = "UPDATE deliveries SET status = 'held', reason = :reason, last_attempt_at = now() - :age * interval '1 min'"
    newest = f"{held} WHERE id = (SELECT max(id::text)::uuid FROM deliveries)"
    with app.app_context():
        sql(held, reason="throttled", age=300)
        sql(newest, reason="no_recipients", age=60)
        assert emailed() == {(1, "held", "no_recipients")}
        found = {each.subject: each for each in conditions.find(EVERYONE).conditions}
        assert found["throttled"].details["count"] == 2
        sql(newest.replace("max", "min"), reason="no_recipients", age=90)
        (since,) = sql("SELECT min(last_attempt_at) FROM deliveries WHERE reason = 'no_recipients'")[0]
        found = {each.subject: each for each in conditions.find(EVERYONE).conditions}
        assert (found["no_recipients"].since, found["no_recipients"].details["count"]) == (since, 2)


def test_keys_that_expire(app: Flask, working_tenant: str, key: str) -> None:
    end = "UPDATE api_keys SET expires_at = now() + :days * interval '1 day' WHERE id = 1"
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant
        for days, is_emailed in ((15, False), (13.9, True), (-1, True), (-29, True), (-31, False)):
            sql("DELETE FROM alerts")
            sql(end, days=days)
            assert emailed() == ({(1, "expiry", "key 1")} if is_emailed else set()), days
        sql(end, days=1)
        api_keys.issue(tenant, "Another")
        assert emailed() == {(1, "expiry", "key 1")}
        api_keys.issue(tenant)
        assert emailed() == set(), "another one of the same name lasts longer"
        assert api_keys.issue(None, "System").row.id == 4
        sql("UPDATE api_keys SET expires_at = now() + interval '1 day' WHERE id = 4")
        assert emailed() == {(None, "expiry", "key 4")}
        sql("UPDATE api_keys SET revoked_at = now()")
        assert emailed() == set()


CONNECTION = """
    UPDATE mail_servers SET auth_mode = 'oauth', host = 'smtp.gmail.com';
    INSERT INTO oauth_connections (tenant_id, provider, grant_type, mailbox, connected_at)
        VALUES (1, 'google', 'authorization_code', 'pbx@acme.example', now())
"""


def test_connections_that_lapse_and_secrets_that_expire(app: Flask, working_tenant: str) -> None:
    end = "UPDATE oauth_connections SET credential_expires_at = now() + :days * interval '1 day'"
    with app.app_context():
        sql("UPDATE mail_servers SET auth_mode = 'oauth', host = 'smtp.gmail.com'")
        assert emailed() == set(), "nobody has connected it yet: a first step, no alert"
        sql(CONNECTION)
        assert emailed() == set()
        for days, is_emailed in ((20, False), (13.9, True), (-2, True)):
            sql(end, days=days)
            assert emailed() == ({(1, "expiry", "secret")} if is_emailed else set()), days
        sql("UPDATE oauth_connections SET credential_expires_at = NULL, lapsed_at = now(), lapse_reason = 'Revoked.'")
        assert emailed() == {(1, "expiry", "connection")}


def test_no_worker_is_worth_an_email_after_five_minutes(app: Flask, acme: str) -> None:
    with app.app_context():
        sql("DELETE FROM procrastinate_workers")
        assert emailed() == set()
        sql("UPDATE alerts SET began_at = began_at - interval '5 min', tell_at = tell_at - interval '5 min'")
        assert emailed() == {(None, "no_worker", "")}
        sql(WORKER)
        assert emailed() == set()
        sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '6 minutes'")
        assert emailed() == {(None, "no_worker", "")}, "it is known when the worker was last alive"


def test_the_disk_of_the_database(app: Flask, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    def disk(free: float | None) -> set[tuple[int | None, str, str]]:
        def usage(_folder: Path) -> SimpleNamespace:
            if free is None:
                raise FileNotFoundError
            return SimpleNamespace(free=free * 100, total=100)

        monkeypatch.setattr(conditions.shutil, "disk_usage", usage)  # type: ignore[attr-defined]
        emailed()
        sql("UPDATE alerts SET tell_at = tell_at - interval '15 minutes'")
        return emailed()

    full = {(None, "disk", "")}
    with app.app_context():
        assert disk(0.05) == set(), "it may be another host's"
        monkeypatch.setitem(
            app.extensions, "settings", settings.model_copy(update={"database_disk": Path("/var/lib/postgresql")})
        )
        assert disk(0.11) == set()
        assert disk(0.09) == full
        assert disk(0.11) == full
        assert disk(None) == full, "as long as nobody knows better"
        assert disk(0.13) == set()


def test_a_suspended_tenant_has_no_alerts_and_nothing_ends_well(app: Flask, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET rejected_at = now() - interval '1 hour'")
        assert emailed() == {(1, "mail_server", "")}
        tenant = tenant_service.find(working_tenant)
        assert tenant
        tenant_service.suspend(tenant)
        assert emailed() == set()
        assert not sql("SELECT * FROM alerts")


def test_an_alert_that_comes_back_at_once_has_not_ended(app: Flask, working_tenant: str) -> None:
    reject = "UPDATE mail_servers SET rejected_at = now() - interval '1 hour'"
    with app.app_context():
        sql(reject)
        emailed()
        for minutes, ended in ((4, 0), (6, 1)):
            sql("UPDATE mail_servers SET rejected_at = NULL")
            emailed()
            sql("UPDATE alerts SET absent_since = absent_since - :minutes * interval '1 minute'", minutes=minutes)
            assert emailed() == set()
            sql(reject)
            assert emailed() == {(1, "mail_server", "")}
            assert sql("SELECT count(*) FROM alerts WHERE ended_at IS NOT NULL")[0][0] == ended


def test_the_pages_show_the_same_list(
    app: Flask, admin: FlaskClient, system: FlaskClient, post: Post, working_tenant: str
) -> None:
    post()
    with app.app_context():
        sql("UPDATE deliveries SET status = 'held', reason = 'no_recipients', last_attempt_at = now() - interval '2 h'")
        sql("UPDATE mail_servers SET failing_since = now() - interval '1 hour', last_failed_at = now()")
        sql("UPDATE api_keys SET expires_at = now() + interval '3 days 1 hour'")
        sql("DELETE FROM procrastinate_workers")
        with app.app_context():
            everyone = conditions.find(EVERYONE).conditions
        with app.app_context():
            enter_scope(1)
            tenants = conditions.find(1).conditions
        with app.app_context():
            systems = conditions.find(None).conditions
        assert sorted(map(essence, everyone)) == sorted(map(essence, [*tenants, *systems]))
        assert {condition.kind for condition in everyone} == {
            *(AlertKind.MAIL_SERVER, AlertKind.HELD, AlertKind.EXPIRY, AlertKind.NO_WORKER)
        }
    page = page_text(admin, f"/tenants/{working_tenant}/overview")
    for sentence in ("mail server 127.0.0.1 fails.", "1 email is held: there are no recipients", "expires in 3 days"):
        assert sentence in page
    assert "No worker is running" in page_text(system, "/system/overview")


def essence(condition: Condition) -> tuple[int, str, str, datetime | None, timedelta | None]:
    return (condition.tenant_id or 0, condition.kind, condition.subject, condition.since, condition.delay)


CROWD = """
    INSERT INTO tenants (name, domain, time_zone, language, alerts_on_silence)
        SELECT 'Crowd', n || '.crowd', 'UTC', 'en', true FROM generate_series(1, 300) AS n;
    INSERT INTO mail_servers (tenant_id, provider, host, port, encryption, auth_mode, sender_email, shared,
            failing_since, last_failed_at)
        SELECT id, 'smtp', 'smtp.gmail.com', 587, 'starttls', 'oauth', 'pbx@' || domain, false,
            now() - interval '1 hour', now() FROM tenants;
    INSERT INTO oauth_connections (tenant_id, provider, grant_type, connected_at, lapsed_at)
        SELECT id, 'google', 'authorization_code', now(), now() FROM tenants;
    INSERT INTO api_keys (tenant_id, key_hash, prefix, expires_at)
        SELECT id, sha256(domain::bytea), 'pbx', now() + interval '1 day' FROM tenants;
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
        SELECT gen_random_uuid(), id, domain, 'queue.call_lost', now(), sha256('x'), '{}' FROM tenants;
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, expires_at, attempts,
            created_at)
        SELECT gen_random_uuid(), tenant_id, id, 'recipients', '', 'held', 'no_recipients', now() + interval '1 day',
            0, now() - interval '2 hours' FROM events
"""


def test_three_hundred_tenants_take_as_many_statements_as_one(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, execute, executed = [], psycopg.Cursor.execute, list[object]()

    def note(cursor: Any, query: Any, *values: Any, **options: Any) -> Any:
        executed.append(query)
        return execute(cursor, query, *values, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    for tenants in (1, 300):
        with app.app_context():
            sql("DELETE FROM tenants")
            sql(CROWD.replace("300", str(tenants)))
            executed.clear()
            recording.record_all()
            counts.append(len(executed))
            assert sql("SELECT count(*) FROM alerts")[0][0] == 4 * tenants
    assert counts[0] == counts[1] <= 15, executed


def test_a_tenant_sees_no_alert_of_another(app: Flask, working_tenant: str, globex: str) -> None:
    with closed_port() as port, app.app_context():
        mail_server_service.save(2, entered(port))
        sql("UPDATE mail_servers SET rejected_at = now()")
        enter_scope(2)
        assert [condition.tenant_id for condition in conditions.find(2).conditions] == [2]


def test_nothing_is_recorded_about_a_tenant_that_is_deleted_meanwhile(app: Flask, working_tenant: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant
        issued = [api_keys.issue(tenant).row.id, api_keys.issue(None, "System").row.id]
        sql("UPDATE api_keys SET expires_at = now() + interval '1 day' WHERE id = ANY(:issued)", issued=issued)
        enter_scope(tenant.id)
        db.session.delete(tenant)
        db.session.flush()
        with blocked_until_done(app, recording.record_all) as recorded:
            db.session.commit()
            recorded.result()
        assert sql("SELECT tenant_id FROM alerts WHERE kind = 'expiry'") == [(None,)]
