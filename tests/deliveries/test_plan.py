"""Plans that a process keeps: none is used after a setting has changed, whoever has changed it.

The settings are changed by a connection of their own, as another process changes them.
"""

from email import message_from_bytes
from email.policy import default

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import DataError

from portal.database import clock
from portal.extensions import Base, db
from portal.mail_servers.models import MailServer
from portal.notifications.models import NotificationSetting, Recipient
from portal.pbx import api_keys
from portal.pbx.models import ApiKey
from portal.pbx.rate_limit import rate_limit
from portal.tenants.models import Tenant
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer
from tests.sql import owner_engine, sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import CALL_LOST, Post

__all__ = ["statements"]

REVISION = "SELECT number FROM settings_revisions JOIN tenants ON tenants.id = tenant_id WHERE domain = 'acme.example'"
SYSTEM_REVISION = "SELECT number FROM settings_revisions WHERE tenant_id IS NULL"
DECIDING: dict[type[Base], set[str]] = {  # by table: the columns that decide nothing about an event
    Tenant: set(),
    Recipient: set(),
    NotificationSetting: set(),
    MailServer: {"id", "password_encrypted"},
    ApiKey: {
        *("id", "name", "prefix", "created_at", "last_used_at", "last_used_ip"),
        *("signing_secret_encrypted", "previous_secret_encrypted"),
    },
}
SYSTEM_SERVER = """
    INSERT INTO mail_servers (provider, host, port, encryption, auth_mode, sender_email, shared)
    SELECT provider, host, port, encryption, auth_mode, 'system@pbx.example', true FROM mail_servers
"""
SIGN = """
    UPDATE api_keys SET signing_secret_encrypted = signed.signing_secret_encrypted, revoked_at = NULL
    FROM (SELECT * FROM api_keys WHERE name = 'signed') AS signed WHERE api_keys.name = 'plain'
"""
LAST = "(SELECT id FROM events ORDER BY id DESC LIMIT 1)"
# What changes, what is asked then, and the answer. Before the change it is another one.
CHANGES: dict[str, tuple[str, str, object]] = {
    "suspended": (
        "UPDATE tenants SET suspended_at = now()",
        f"SELECT ignored_reason FROM events WHERE id = {LAST}",
        "tenant_suspended",
    ),
    "switched off": (
        "UPDATE notification_settings SET enabled = false",
        f"SELECT ignored_reason FROM events WHERE id = {LAST}",
        "switched_off",
    ),
    "storm limit": (
        "UPDATE tenants SET storm_limit = 1",
        f"SELECT reason FROM deliveries WHERE event_id = {LAST}",
        "throttled",
    ),
    "no mail server": (
        "DELETE FROM mail_servers",
        f"SELECT reason FROM deliveries WHERE event_id = {LAST}",
        "no_mail_server",
    ),
    "rejected mail server": (
        "UPDATE mail_servers SET rejected_at = now()",
        f"SELECT reason FROM deliveries WHERE event_id = {LAST}",
        "mail_server_rejected",
    ),
    "paused mail server": (
        "UPDATE mail_servers SET paused_until = now() + interval '1 hour'",
        f"SELECT status FROM deliveries WHERE event_id = {LAST}",
        "deferred",
    ),
    "no recipients": (
        "DELETE FROM recipients",
        f"SELECT reason FROM deliveries WHERE event_id = {LAST}",
        "no_recipients",
    ),
    "another recipient": (
        "INSERT INTO recipients (tenant_id, email) SELECT id, 'new@acme.example' FROM tenants",
        f"SELECT count(*) FROM delivery_recipients JOIN deliveries ON id = delivery_id WHERE event_id = {LAST}",
        3,
    ),
    "excluded event type": (
        "UPDATE recipients SET excluded_event_types = '{queue.call_lost}'",
        f"SELECT ignored_reason FROM events WHERE id = {LAST}",
        "no_recipient_wants_it",
    ),
    "paused recipient": (
        "UPDATE recipients SET paused_until = now() + interval '1 hour' WHERE email LIKE 'ops%'",
        f"SELECT count(*) FROM delivery_recipients JOIN deliveries ON id = delivery_id WHERE event_id = {LAST}",
        1,
    ),
    "quiet hours": (
        "UPDATE recipients SET quiet_days = '{0,1,2,3,4,5,6}', quiet_from = '00:00', quiet_until = '23:59'",
        f"SELECT reason FROM deliveries WHERE event_id = {LAST}",
        "quiet_hours",
    ),
    "queues": (
        "UPDATE recipients SET queues = '{4711}'",
        f"SELECT ignored_reason FROM events WHERE id = {LAST}",
        "no_recipient_wants_it",
    ),
}


def test_an_event_like_the_last_one_takes_two_statements(
    post: Post, working_tenant: str, peer: SmtpPeer, statements: Statements
) -> None:
    assert post().json["status"] == "sent"
    statements.clear()
    assert post().json["status"] == "sent"
    assert len(statements) == 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_decides_about_the_next_event(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, change: str
) -> None:
    statement, question, answer = CHANGES[change]
    with app.app_context():
        for _ in range(2):
            assert post().json["status"] == "sent"
        assert sql(question)[0][0] != answer
        sql(statement)
        assert post().status_code == 200
        assert sql(question)[0][0] == answer


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE tenants SET sender_name = 'Acme Support'", "From: Acme Support <pbx@acme.example>"),
        ("UPDATE tenants SET reply_to = 'help@acme.example'", "Reply-To: help@acme.example"),
        ("UPDATE tenants SET brand_color = '#aa0011'", "#aa0011"),
        ("UPDATE tenants SET email_footer = 'Hotline 4711'", "Hotline 4711"),
        ("UPDATE tenants SET language = 'de'", "Anrufer"),
        ("UPDATE tenants SET time_zone = 'Asia/Tokyo'", "JST"),
        ("UPDATE mail_servers SET sender_email = 'alerts@acme.example'", "<alerts@acme.example>"),
    ],
)
def test_the_next_email_has_what_was_changed(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, change: str, expected: str
) -> None:
    with app.app_context():
        for _ in range(2):
            post()
        assert expected not in _last_email(peer)
        sql(change)
        assert post().json["status"] == "sent"
        assert expected in _last_email(peer)


def test_the_next_event_takes_the_mail_server_that_applies_now(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        assert post().json["status"] == "sent"
        for statement, sender in (
            (SYSTEM_SERVER, "pbx@acme.example"),
            ("DELETE FROM mail_servers WHERE tenant_id IS NOT NULL", "system@pbx.example"),
            ("UPDATE mail_servers SET sender_email = 'other@pbx.example'", "other@pbx.example"),
        ):
            sql(statement)
            assert post().json["status"] == "sent"
            assert f"<{sender}>" in _last_email(peer)
        sql("UPDATE mail_servers SET shared = false")
        assert post().json["reason"] == "no_mail_server"


@pytest.mark.parametrize("limit", ["100 per 6 hours", "2 per 6 hours"], ids=["within the limit", "above the limit"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE api_keys SET revoked_at = now()",
        "UPDATE api_keys SET expires_at = now() - interval '1 second'",
        "UPDATE api_keys SET key_hash = sha256('another')",
        "DELETE FROM api_keys",
        "DELETE FROM tenants",
    ],
)
def test_a_key_that_is_no_longer_valid_is_rejected_at_once(
    app: Flask,
    post: Post,
    working_tenant: str,
    peer: SmtpPeer,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    limit: str,
) -> None:
    settings = app.extensions["settings"].model_copy(update={"event_rate_limit": limit})
    monkeypatch.setitem(app.extensions, "settings", settings)
    rate_limit.cache_clear()
    with app.app_context():
        for _ in range(2):
            assert post().status_code == 200
        events = sql("SELECT count(*) FROM events")[0][0]
        sql(change)
        assert post().status_code == 401
        assert sql("SELECT count(*) FROM events")[0][0] in {events, 0}


def test_a_deleted_tenant_has_no_events_whatever_the_system_has_counted(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        for _ in range(2):
            assert post().status_code == 200
        counted = sql(REVISION)[0][0]
        sql("DELETE FROM tenants")
        sql("INSERT INTO settings_revisions (tenant_id, number) VALUES (NULL, :counted)", counted=counted)
        assert post().status_code == 401


def test_a_plan_is_not_kept_if_changes_are_not_counted(app: Flask, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("DELETE FROM settings_revisions")
        for enabled, status in ((True, "sent"), (False, "ignored")):
            sql("UPDATE notification_settings SET enabled = :enabled", enabled=enabled)
            assert post().json["status"] == status


def test_events_of_a_key_that_moved_belong_to_its_new_tenant(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        for _ in range(2):
            assert post().json["status"] == "sent"
        sql("INSERT INTO tenants (name, domain, time_zone, language) VALUES ('Globex', 'globex.example', 'UTC', 'en')")
        sql("UPDATE api_keys SET tenant_id = (SELECT max(id) FROM tenants)")
        assert post().json["reason"] == "switched_off"


def test_events_of_other_tenants_take_no_place_of_a_plan(app: Flask, post: Post, working_tenant: str) -> None:
    assert post().status_code == 200
    kept = dict(api_keys._clients)
    assert post(tenant="globex.example").status_code == 403
    assert api_keys._clients == kept


def test_the_use_of_a_key_is_recorded_once_for_all_its_events(
    post: Post, working_tenant: str, peer: SmtpPeer, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    sla_breached = {"queue_number": "8000", "callers_waiting": 3, "callers_breached": 2, "sla_seconds": 60}
    for kind, data in (("queue.call_lost", CALL_LOST), ("queue.sla_breached", sla_breached)):
        assert post(kind, data).json["status"] == "sent"
    later = clock.now() + 2 * api_keys.RECORD_USE_INTERVAL
    monkeypatch.setattr(clock, "now", lambda: later)
    assert post("queue.call_lost", CALL_LOST).json["status"] == "sent"
    statements.clear()
    assert post("queue.sla_breached", sla_breached).json["status"] == "sent"
    assert len(statements) == 2


def test_a_key_expires_without_a_change(app: Flask, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("UPDATE api_keys SET expires_at = clock_timestamp() + interval '1.5 seconds'")
    assert post().status_code == 200
    assert post().status_code == 200
    wait_for(lambda: post().status_code == 401)


def test_a_signature_is_required_from_the_next_event_on(
    app: Flask, client: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        plain = api_keys.issue(None, "plain")
        api_keys.issue(None, "signed", signed=True)
    body = {"type": "queue.call_lost", "tenant": working_tenant, "data": CALL_LOST}
    for status in (200, 200, 401):
        if status == 401:
            with app.app_context():
                sql(SIGN)
        response = client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {plain.secret}"})
        assert response.status_code == status, response.text


@pytest.mark.parametrize("model", DECIDING, ids=lambda model: model.__tablename__)
def test_each_change_of_a_row_that_decides_is_counted(
    app: Flask, post: Post, working_tenant: str, model: type[Base]
) -> None:
    with app.app_context():
        assert post().status_code == 200
        for column in model.__table__.columns:
            if column.computed is not None:
                continue
            before = sql(REVISION)[0][0]
            sql(f"UPDATE {model.__tablename__} SET {column.name} = {column.name}")
            assert sql(REVISION)[0][0] == before + (column.name not in DECIDING[model]), column.name


def test_a_transaction_is_counted_once_and_only_if_it_is_committed(app: Flask, acme: str) -> None:
    with app.app_context():
        before = sql(REVISION)[0][0]
        sql("INSERT INTO recipients (tenant_id, email) SELECT id, 'r' || n FROM tenants, generate_series(1, 100) AS n")
        assert sql(REVISION)[0][0] == before + 1
        with pytest.raises(DataError):
            sql("WITH gone AS (DELETE FROM recipients RETURNING id) SELECT 1 / (id - id) FROM gone")
        assert sql(REVISION)[0][0] == before + 1


def test_what_belongs_to_the_system_is_counted_for_the_system(app: Flask, working_tenant: str) -> None:
    with app.app_context():
        before, seen = sql(REVISION)[0][0], []
        for statement in (SYSTEM_SERVER, "UPDATE mail_servers SET shared = false WHERE tenant_id IS NULL"):
            sql(statement)
            seen.append(sql(SYSTEM_REVISION)[0][0])
        assert seen[1] == seen[0] + 1
        assert sql(REVISION)[0][0] == before


def test_a_deleted_tenant_leaves_no_revision(app: Flask, working_tenant: str) -> None:
    with app.app_context():
        sql("DELETE FROM tenants")
        assert sql("SELECT tenant_id FROM settings_revisions WHERE tenant_id IS NOT NULL") == []


def _last_email(peer: SmtpPeer) -> str:
    """Return the headers and the decoded parts of the last email."""
    message = message_from_bytes(peer.messages[-1].content, policy=default)
    parts = [part.get_content() for part in message.walk() if part.get_content_maintype() == "text"]
    return "\n".join([*(f"{name}: {value}" for name, value in message.items()), *parts])


def test_an_open_change_of_the_settings_delays_neither_an_event_nor_its_result(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.deliveries.attempt.STORE_RETRY_DELAYS", ())
    assert post().json["status"] == "sent"
    peer.script = {"dot": "421 4.3.2 closing"}
    with app.app_context(), owner_engine(db.engine.url).begin() as other:
        other.execute(text("UPDATE tenants SET reply_to = 'help@acme.example'"))
        assert post().json["status"] == "deferred"
        assert sql(f"SELECT status FROM deliveries WHERE event_id = {LAST}")[0][0] == "deferred"
