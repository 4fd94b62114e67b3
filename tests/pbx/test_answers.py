"""The answer table of delivery: each row, spoken by a real mail server to a real request."""

import base64
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from portal.database import enter_scope, every_tenant
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.extensions import db
from portal.mail_servers import sending
from portal.mail_servers import settings as mail_server_settings
from portal.mail_servers.connection import Budget
from portal.mail_servers.models import MailServer
from portal.notifications import recipients, switches
from portal.pbx import keys
from portal.tenants import directory
from tests.ready import CALL_LOST, PEOPLE, Post, entered, read
from tests.smtp_peer import Act, SmtpPeer, refusing_port
from tests.sql import sql

CALL = b'{"type": "queue.call_lost", "data": {"queue_number": "%s", "caller_number": "1"}}'
SOON = Budget(connect=0.4, command=0.4, total=0.6, reply=0.4)


def statuses(answer: Any) -> list[str]:
    return [each["status"] for each in answer.json["deliveries"][0]["recipients"]]


def test_every_recipient_accepted_is_sent(post: Post, ready: str, peer: SmtpPeer) -> None:
    answer = post(id="one")
    assert answer.status_code == 200
    assert answer.json["id"] == "one"
    assert answer.json["status"] == "sent"
    assert answer.json["duplicate"] is False
    assert [each["address"] for each in answer.json["deliveries"][0]["recipients"]] == PEOPLE
    assert answer.json["deliveries"][0]["recipients"][0] == {
        "address": PEOPLE[0],
        "status": "sent",
        "stage": "data",
        "code": 250,
        "enhanced_code": "2.0.0",
        "text": "queued as 4711",
    }
    (mail,) = peer.mails
    assert mail.recipients == PEOPLE
    assert answer.json["deliveries"][0]["message_id"].encode() in mail.content


@pytest.mark.parametrize(
    ("script", "status", "each"),
    [
        ({"rcpt": ["250 ok", "550 5.1.1 no such user"]}, "partial", ["sent", "failed"]),
        ({"rcpt": ["250 ok", "451 4.3.0 later"]}, "partial", ["sent", "deferred"]),
        ({"rcpt": "550 5.1.1 no such user"}, "failed", ["failed", "failed"]),
        ({"rcpt": ["550 5.1.1 no", "451 4.3.0 later"]}, "deferred", ["failed", "deferred"]),
        ({"dot": "451 4.3.0 later"}, "deferred", ["deferred", "deferred"]),
        ({"dot": "554 5.7.1 spam"}, "failed", ["failed", "failed"]),
        ({"greeting": "421 4.3.2 closing"}, "deferred", ["deferred", "deferred"]),
        ({"mail": "550 5.7.1 sender refused"}, "held", ["held", "held"]),
        ({"dot": Act.DROP}, "deferred", ["deferred", "deferred"]),
        ({"dot": Act.SILENCE}, "deferred", ["deferred", "deferred"]),
        ({"ehlo": Act.SILENCE}, "deferred", ["deferred", "deferred"]),
        ({"quit": Act.DROP}, "sent", ["sent", "sent"]),
    ],
)
def test_what_the_mail_server_says_is_what_the_pbx_is_told(
    post: Post, ready: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch, script: Any, status: str, each: list[str]
) -> None:
    monkeypatch.setattr("portal.deliveries.attempt.BUDGET", SOON)
    peer.script = script
    answer = post()
    assert (answer.status_code, answer.json["status"], statuses(answer)) == (200, status, each)
    waits = answer.json["deliveries"][0]["next_attempt_at"]
    assert (waits is not None) == ("deferred" in each)
    assert answer.json["reason"] == ("mail_server_rejected" if status == "held" else None)


def test_a_deferred_mail_is_due_after_a_minute_give_or_take(post: Post, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    waits = datetime.fromisoformat(post().json["deliveries"][0]["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=40) < waits < timedelta(seconds=80)


def test_a_dead_mail_server_is_paused_for_a_minute(app: Flask, post: Post, ready: str, acme: str) -> None:
    with refusing_port() as port:
        with app.app_context():
            tenant = directory.find(acme)
            assert tenant
            mail_server_settings.save(tenant.id, entered(port))
        first, second = post().json, post().json
    assert first["status"] == second["status"] == "deferred"
    assert first["deliveries"][0]["recipients"][0]["stage"] == "connect"
    assert second["deliveries"][0]["recipients"][0]["stage"] is None, "the second one did not try"


def test_refused_settings_hold_mail_until_they_are_saved_again(
    app: Flask, post: Post, ready: str, acme: str, peer: SmtpPeer
) -> None:
    peer.script = {"auth": "535 5.7.8 wrong"}
    peer.accounts, peer.mechanisms = {"u": "p"}, "PLAIN"
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant
        server = mail_server_settings.save(
            tenant.id, entered(peer.port, auth_mode="plain", username="u", password="wrong")
        )
        assert isinstance(server, MailServer)
    first, second = post().json, post().json
    assert (first["status"], first["reason"]) == ("held", "mail_server_rejected")
    assert (second["status"], second["reason"]) == ("held", "mail_server_rejected")
    assert len(peer.conversations) == 1, "no hammering into a lockout"
    peer.script = {}
    with app.app_context():
        mail_server_settings.save(tenant.id, entered(peer.port, auth_mode="plain", username="u", password="p"))
    assert post().json["status"] == "sent"


def test_no_mail_server_holds(app: Flask, post: Post, ready: str, acme: str) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant
        mail_server_settings.remove(tenant.id)
    answer = post()
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "held", "no_mail_server")
    assert statuses(answer) == ["held", "held"]


def test_no_recipients_holds(app: Flask, post: Post, ready: str, acme: str) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant
        enter_scope(tenant.id)
        recipients.replace(tenant, [])
    assert (post().json["status"], post().json["reason"]) == ("held", "no_recipients")


def test_a_switched_off_event_is_ignored(app: Flask, post: Post, ready: str, acme: str, peer: SmtpPeer) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant
        enter_scope(tenant.id)
        switches.turn(tenant, ["queue.call_lost"], on=False)
    answer = post()
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "ignored", "switched_off")
    assert answer.json["deliveries"] == []
    assert not peer.conversations


def test_events_of_a_suspended_tenant_are_ignored(app: Flask, post: Post, ready: str, acme: str) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant
        directory.suspend(tenant)
    assert (post().json["status"], post().json["reason"]) == ("ignored", "tenant_suspended")


def test_a_repeated_event_sends_no_second_mail(post: Post, ready: str, peer: SmtpPeer) -> None:
    first, second = post(id="same").json, post(id="same").json
    assert second == first | {"duplicate": True}
    assert len(peer.mails) == 1


def test_a_repeated_event_is_told_what_is_true_now(app: Flask, post: Post, ready: str) -> None:
    post(id="same")
    with app.app_context():
        sql("UPDATE delivery_recipients SET status = 'failed', code = 550")
        sql("UPDATE deliveries SET status = 'failed'")
    assert post(id="same").json["status"] == "failed"


def test_an_event_without_an_id_is_new_each_time(post: Post, ready: str, peer: SmtpPeer) -> None:
    assert post().json["id"] != post().json["id"]
    assert len(peer.mails) == 2


def test_the_same_id_with_other_content_is_a_conflict(post: Post, ready: str, peer: SmtpPeer) -> None:
    post(id="same")
    answer = post(id="same", data=CALL_LOST | {"waited_seconds": 91})
    assert answer.status_code == 409
    assert answer.content_type == "application/problem+json"
    assert len(peer.mails) == 1


def test_two_tenants_may_use_the_same_id(
    app: Flask, post: Post, ready: str, globex: str, system_key: str, client: FlaskClient
) -> None:
    post(id="same")
    body = {"type": "queue.call_lost", "id": "same", "tenant": globex, "data": CALL_LOST}
    answer = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"}))
    assert (answer.json["duplicate"], answer.json["status"]) == (False, "ignored")


def test_the_event_is_on_disk_before_the_first_byte_of_smtp(
    app: Flask, post: Post, ready: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    states = "SELECT d.status, r.status FROM deliveries d JOIN delivery_recipients r ON r.delivery_id = d.id"

    def look(*arguments: Any, **named: Any) -> Any:
        seen.extend(tuple(row) for row in sql(states))
        return real(*arguments, **named)

    real = sending.submit
    monkeypatch.setattr("portal.deliveries.attempt.submit", look)
    assert post().json["status"] == "sent"
    assert seen == [("pending", "pending"), ("pending", "pending")]


def test_what_is_stored_is_what_was_answered(app: Flask, post: Post, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such user"]}
    post(id="one")
    with app.app_context(), every_tenant():
        event = db.session.scalars(select(RecordedEvent)).one()
        delivery = db.session.scalars(select(Delivery)).one()
        first, second = db.session.scalars(select(DeliveryRecipient).order_by(DeliveryRecipient.position))
        assert (event.event_id, event.type, event.data["queue_number"]) == ("one", "queue.call_lost", "8000")
        assert (delivery.status, delivery.lease_until, delivery.attempts) == ("partial", None, 1)
        assert (first.status, first.code) == ("sent", 250)
        assert (second.status, second.stage, second.code, second.enhanced_code) == ("failed", "rcpt", 550, "5.1.1")


def test_the_shared_mail_server_serves_who_has_none(app: Flask, post: Post, ready: str, acme: str) -> None:
    with SmtpPeer() as shared, app.app_context():
        tenant = directory.find(acme)
        assert tenant
        mail_server_settings.save(None, entered(shared.port, sender_email="noreply@pbx.example"))
        mail_server_settings.share(True)
        assert post().json["status"] == "sent"
        assert not shared.mails, "the tenant's own wins"
        mail_server_settings.remove(tenant.id)
        assert post().json["status"] == "sent"
        (mail,) = shared.mails
        assert mail.sender == "noreply@pbx.example"
        assert b'From: "Acme" <noreply@pbx.example>' in mail.content


# Who may post


def test_no_key_or_a_wrong_one_is_401(client: FlaskClient, ready: str, app: Flask, key: str) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    for given in ("", "Bearer", "Bearer nonsense", "Basic ###", f"Digest {key}"):
        answer = read(client.post("/api/v1/events", json=body, headers={"Authorization": given}))
        assert answer.status_code == 401
        assert answer.content_type == "application/problem+json"
        assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_a_revoked_key_is_401(app: Flask, post: Post, ready: str) -> None:
    with app.app_context():
        ((key, _),) = keys.every_key()
        keys.revoke(key)
    assert post().status_code == 401


def test_a_key_works_as_the_password_of_basic(client: FlaskClient, key: str, ready: str) -> None:
    credentials = base64.b64encode(f"portsip:{key}".encode()).decode()
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    answer = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Basic {credentials}"}))
    assert answer.json["status"] == "sent"


def test_a_key_of_another_tenant_is_403_whether_that_tenant_exists_or_not(post: Post, ready: str, globex: str) -> None:
    other, nobody = post(tenant=globex), post(tenant="nobody.example")
    assert other.status_code == nobody.status_code == 403
    assert other.json == nobody.json


def test_a_tenants_key_may_name_its_own_tenant(post: Post, ready: str) -> None:
    assert post(tenant="ACME.example").json["status"] == "sent"


def test_a_system_key_must_name_a_tenant_that_exists(client: FlaskClient, system_key: str, ready: str) -> None:
    headers = {"Authorization": f"Bearer {system_key}"}
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    for tenant in ({}, {"tenant": "nobody.example"}):
        answer = read(client.post("/api/v1/events", json=body | tenant, headers=headers))
        assert answer.status_code == 422
        assert answer.json["errors"][0]["field"] == "tenant"
    answer = read(client.post("/api/v1/events", json=body | {"tenant": ready}, headers=headers))
    assert answer.json["status"] == "sent"


def test_the_use_of_a_key_is_noted(app: Flask, post: Post, ready: str) -> None:
    post()
    with app.app_context():
        ((key, owner),) = keys.every_key()
        assert key.last_used_at is not None
        assert key.last_used_from == "127.0.0.1"
        assert owner
        assert owner.domain == "acme.example"


# Bad input


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"not json", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (CALL % rb"\ud800", "application/json", 400),
        (b"{}" + b" " * 2_000_000, "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"type=queue.call_lost", "application/x-www-form-urlencoded", 415),
        (b"{}", "application/json", 422),
        (b'{"type": "queue.exploded", "data": {}}', "application/json", 422),
        (b'{"type": "queue.call_lost", "data": {"queue_number": "8000"}}', "application/cloudevents+json", 422),
        (b'{"type": "queue.call_lost", "data": {"queue_number": 1e9, "caller_number": []}}', "application/json", 422),
        (b'{"id": "' + b"x" * 10_000 + b'", "type": "queue.call_lost", "data": {}}', "application/json", 422),
        (CALL % rb"8\u0000", "application/json", 422),
    ],
)
def test_what_is_no_event_is_refused_and_nothing_is_recorded(
    app: Flask, client: FlaskClient, key: str, ready: str, body: bytes, media_type: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = read(client.post("/api/v1/events", data=body, content_type=media_type, headers=headers))
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    if status == 422:
        assert all(error["field"] and error["message"] for error in answer.json["errors"])
        assert answer.json["errors"]
    with app.app_context(), every_tenant():
        assert db.session.scalar(select(func.count()).select_from(RecordedEvent)) == 0


def test_too_many_events_of_one_key_are_429(
    app: Flask, post: Post, ready: str, system_key: str, client: FlaskClient
) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "2 per hour"})
    try:
        answers = [post() for _ in range(3)]
        body = {"type": "queue.call_lost", "tenant": ready, "data": CALL_LOST}
        other = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"}))
    finally:
        app.extensions["settings"] = settings
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 3600
    assert other.status_code == 200, "another key is not concerned"


def test_a_body_in_chunks_is_bounded_too(client: FlaskClient, key: str, ready: str) -> None:
    event = b'{"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "1"}}'
    for blanks in (65_536, 2_000_000):
        answer = client.post(
            "/api/v1/events",
            input_stream=BytesIO(event + b" " * blanks),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
        )
        assert answer.status_code == 413


def test_a_slash_at_the_end_of_the_address_does_no_harm(client: FlaskClient, key: str, ready: str) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    answer = client.post("/api/v1/events/", json=body, headers={"Authorization": f"Bearer {key}"})
    assert read(answer).json["status"] == "sent"
