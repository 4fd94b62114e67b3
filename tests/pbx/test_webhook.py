"""The responses of the webhook: each case with a real request and a real mail server."""

import base64
import gzip
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from portal.database.scope import enter_scope, every_tenant
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp.outcome import Stage
from portal.mail_servers.smtp.pool import Pool
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.deliveries.test_matrix import use
from tests.due_emails import send_due_emails
from tests.mail_servers.example_message import PATIENT, SHORT, short_at
from tests.signing import signature_headers
from tests.smtp_peer import Fault, SmtpPeer, closed_port
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post, entered, read

EVENT = b'{"type": "queue.call_lost", "data": {"queue_number": "%s", "caller_number": "1"}}'


def statuses(response: Any) -> list[str]:
    return [recipient["status"] for recipient in response.json["deliveries"][0]["recipients"]]


def test_every_recipient_accepted_is_sent(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    response = post(id="one")
    assert response.status_code == 200
    assert response.json["id"] == "one"
    assert response.json["status"] == "sent"
    assert response.json["duplicate"] is False
    assert [recipient["address"] for recipient in response.json["deliveries"][0]["recipients"]] == PEOPLE
    assert response.json["deliveries"][0]["recipients"][0] == {
        "address": PEOPLE[0],
        "status": "sent",
        "stage": "data",
        "code": 250,
        "enhanced_code": "2.0.0",
        "text": "queued as 4711",
    }
    (mail,) = peer.messages
    assert mail.recipients == PEOPLE
    assert response.json["deliveries"][0]["message_id"].encode() in mail.content


REPLIES: list[tuple[Any, str, list[str]]] = [
    ({"rcpt": ["250 ok", "550 5.1.1 no such user"]}, "partial", ["sent", "failed"]),
    ({"rcpt": ["250 ok", "451 4.3.0 later"]}, "partial", ["sent", "deferred"]),
    ({"rcpt": "550 5.1.1 no such user"}, "failed", ["failed", "failed"]),
    ({"rcpt": ["550 5.1.1 no", "451 4.3.0 later"]}, "deferred", ["failed", "deferred"]),
    ({"dot": "451 4.3.0 later"}, "deferred", ["deferred", "deferred"]),
    ({"dot": "554 5.7.1 spam"}, "failed", ["failed", "failed"]),
    ({"greeting": "421 4.3.2 closing"}, "deferred", ["deferred", "deferred"]),
    ({"mail": "550 5.7.1 sender refused"}, "held", ["held", "held"]),
    ({"dot": Fault.DROP}, "deferred", ["deferred", "deferred"]),
    ({"dot": Fault.SILENCE}, "deferred", ["deferred", "deferred"]),
    ({"ehlo": Fault.SILENCE}, "deferred", ["deferred", "deferred"]),
    ({"quit": Fault.DROP}, "sent", ["sent", "sent"]),
]


@pytest.mark.slow
def test_the_pbx_gets_the_mail_servers_reply(
    app: Flask, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for number, (script, status, recipient_statuses) in enumerate(REPLIES):
        with subtests.test(status, script=script), SmtpPeer(script) as peer, short_at(Stage.EHLO) as short:
            timeouts = replace(short, reply=SHORT) if Fault.SILENCE in script.values() else PATIENT
            monkeypatch.setattr("portal.deliveries.attempt.DEFAULT_TIMEOUTS", timeouts)
            use(app, working_tenant, peer.port)
            response = post(data=CALL_LOST | {"queue_number": str(number)})
            told = response.status_code, response.json["status"], statuses(response)
            assert told == (200, status, recipient_statuses)
            waits = response.json["deliveries"][0]["next_attempt_at"]
            assert (waits is not None) == ("deferred" in recipient_statuses)
            assert response.json["reason"] == ("mail_server_rejected" if status == "held" else None)


def test_a_deferred_email_is_due_after_about_a_minute(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    waits = datetime.fromisoformat(post().json["deliveries"][0]["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=40) < waits < timedelta(seconds=80)


def test_a_dead_mail_server_is_paused_for_a_minute(app: Flask, post: Post, working_tenant: str, acme: str) -> None:
    with closed_port() as port:
        with app.app_context():
            tenant = tenant_service.find(acme)
            assert tenant
            mail_server_settings.save(tenant.id, entered(port))
        first, second = post().json, post().json
    assert first["status"] == second["status"] == "deferred"
    assert first["deliveries"][0]["recipients"][0]["stage"] == "connect"
    assert second["deliveries"][0]["recipients"][0]["stage"] is None, "the second event did not try"


def test_rejected_settings_hold_email_until_they_are_saved_again(
    app: Flask, post: Post, working_tenant: str, acme: str, peer: SmtpPeer
) -> None:
    peer.script = {"auth": "535 5.7.8 wrong"}
    peer.accounts, peer.mechanisms = {"u": "p"}, "PLAIN"
    with app.app_context():
        tenant = tenant_service.find(acme)
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


@pytest.mark.parametrize("by_worker", [False, True])
def test_a_password_that_cannot_be_read_holds_the_email(
    app: Flask, post: Post, working_tenant: str, acme: str, peer: SmtpPeer, by_worker: bool
) -> None:
    peer.accounts, peer.mechanisms = {"u": "p"}, "PLAIN"
    settings = entered(peer.port, auth_mode="plain", username="u", password="p")
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        mail_server_settings.save(tenant.id, settings)
    if by_worker:
        peer.script = {"dot": "451 4.3.0 later"}
        assert post().json["status"] == "deferred"
        peer.script = {}
    with app.app_context():  # its key was removed from the key ring
        sql("UPDATE mail_servers SET password_encrypted = convert_to('other', 'UTF8') || password_encrypted")
        api_keys._clients.clear()  # as in a process that was started since
        sql("UPDATE deliveries SET next_attempt_at = now()")
        send_due_emails()
    result = post(id="second").json
    assert (result["status"], result["reason"]) == ("held", "mail_server_rejected")
    assert "cannot be read" in result["deliveries"][0]["recipients"][0]["text"]
    with app.app_context():
        assert set(sql("SELECT reason FROM deliveries")) == {("mail_server_rejected",)}
        mail_server_settings.save(tenant.id, settings)
        send_due_emails()
    assert len(peer.messages) == 1 + by_worker


def test_without_a_mail_server_email_is_held(app: Flask, post: Post, working_tenant: str, acme: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        mail_server_settings.remove(tenant.id)
    response = post()
    assert (response.status_code, response.json["status"], response.json["reason"]) == (200, "held", "no_mail_server")
    assert statuses(response) == ["held", "held"]


def test_without_recipients_email_is_held(app: Flask, post: Post, working_tenant: str, acme: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        enter_scope(tenant.id)
        recipients.replace(tenant, [])
    assert (post().json["status"], post().json["reason"]) == ("held", "no_recipients")


def test_a_switched_off_event_is_ignored(
    app: Flask, post: Post, working_tenant: str, acme: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        enter_scope(tenant.id)
        notifications_settings.set_enabled(tenant, ["queue.call_lost"], on=False)
    response = post()
    assert (response.status_code, response.json["status"], response.json["reason"]) == (200, "ignored", "switched_off")
    assert response.json["deliveries"] == []
    assert not peer.conversations


def test_events_of_a_suspended_tenant_are_ignored(app: Flask, post: Post, working_tenant: str, acme: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        tenant_service.suspend(tenant)
    assert (post().json["status"], post().json["reason"]) == ("ignored", "tenant_suspended")


def test_a_repeated_event_sends_no_second_email(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    first, second = post(id="same").json, post(id="same").json
    assert second == first | {"duplicate": True}
    assert len(peer.messages) == 1


def test_a_repeated_event_gets_the_current_result(app: Flask, post: Post, working_tenant: str) -> None:
    post(id="same")
    with app.app_context():
        sql("UPDATE delivery_recipients SET status = 'failed', code = 550")
        sql("UPDATE deliveries SET status = 'failed'")
    assert post(id="same").json["status"] == "failed"


def test_an_event_without_an_id_is_new_each_time(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    assert post().json["id"] != post().json["id"]
    assert len(peer.messages) == 2


def test_the_same_id_with_other_content_is_a_conflict(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post(id="same")
    response = post(id="same", data=CALL_LOST | {"waited_seconds": 91})
    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert len(peer.messages) == 1


def test_two_tenants_may_use_the_same_id(
    app: Flask, post: Post, working_tenant: str, globex: str, system_key: str, client: FlaskClient
) -> None:
    post(id="same")
    body = {"type": "queue.call_lost", "id": "same", "tenant": globex, "data": CALL_LOST}
    response = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"}))
    assert (response.json["duplicate"], response.json["status"]) == (False, "ignored")


def test_the_event_is_on_disk_before_the_first_byte_of_smtp(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    states = "SELECT d.status, r.status FROM deliveries d JOIN delivery_recipients r ON r.delivery_id = d.id"

    def send(*arguments: Any, **named: Any) -> Any:
        seen.extend(tuple(row) for row in sql(states))
        return real_send(*arguments, **named)

    real_send = Pool.send
    monkeypatch.setattr(Pool, "send", send)
    assert post().json["status"] == "sent"
    assert seen == [("pending", "pending"), ("pending", "pending")]


def test_the_stored_result_is_that_of_the_response(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such user"]}
    post(id="one")
    with app.app_context(), every_tenant():
        event = db.session.scalars(select(RecordedEvent)).one()
        delivery = db.session.scalars(select(Delivery)).one()
        first, second = db.session.scalars(select(DeliveryRecipient).order_by(DeliveryRecipient.position))
        assert (event.external_id, event.type, event.data["queue_number"]) == ("one", "queue.call_lost", "8000")
        assert (delivery.status, delivery.lease_until, delivery.attempts) == ("partial", None, 1)
        assert (first.status, first.code) == ("sent", 250)
        assert (second.status, second.stage, second.code, second.enhanced_code) == ("failed", "rcpt", 550, "5.1.1")


def test_the_shared_mail_server_is_used_without_an_own_one(
    app: Flask, post: Post, working_tenant: str, acme: str
) -> None:
    with SmtpPeer() as shared, app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        mail_server_settings.save(None, entered(shared.port, sender_email="noreply@pbx.example"))
        mail_server_settings.share(True)
        assert post().json["status"] == "sent"
        assert not shared.messages, "the tenant's own has precedence"
        mail_server_settings.remove(tenant.id)
        assert post().json["status"] == "sent"
        (mail,) = shared.messages
        assert mail.sender == "noreply@pbx.example"
        assert b'From: "Acme" <noreply@pbx.example>' in mail.content


# Authentication


def test_a_missing_or_wrong_key_is_401(client: FlaskClient, working_tenant: str, app: Flask, key: str) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    for given in ("", "Bearer", "Bearer nonsense", "Basic ###", f"Digest {key}"):
        response = read(client.post("/api/v1/events", json=body, headers={"Authorization": given}))
        assert response.status_code == 401
        assert response.content_type == "application/problem+json"
        assert "Bearer" in response.headers["WWW-Authenticate"]


def test_a_revoked_key_is_401(app: Flask, post: Post, working_tenant: str) -> None:
    with app.app_context():
        ((key, _),) = api_keys.list_all()
        api_keys.revoke(key)
    assert post().status_code == 401


@pytest.mark.parametrize("form", ["portsip:{key}", "{key}:", ":{key}"])
def test_a_key_works_as_the_password_of_basic_or_its_username(
    client: FlaskClient, key: str, working_tenant: str, form: str
) -> None:
    credentials = base64.b64encode(form.format(key=key).encode()).decode()
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    response = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Basic {credentials}"}))
    assert response.json["status"] == "sent"


def test_a_key_of_another_tenant_is_403_whether_that_tenant_exists_or_not(
    post: Post, working_tenant: str, globex: str
) -> None:
    other, nobody = post(tenant=globex), post(tenant="nobody.example")
    assert other.status_code == nobody.status_code == 403
    assert other.json == nobody.json


def test_a_tenants_key_may_name_its_own_tenant(post: Post, working_tenant: str) -> None:
    assert post(tenant="ACME.example").json["status"] == "sent"


def test_a_system_key_must_name_a_tenant_that_exists(client: FlaskClient, system_key: str, working_tenant: str) -> None:
    headers = {"Authorization": f"Bearer {system_key}"}
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    for tenant in ({}, {"tenant": "nobody.example"}):
        response = read(client.post("/api/v1/events", json=body | tenant, headers=headers))
        assert response.status_code == 422
        assert response.json["errors"][0]["field"] == "tenant"
    response = read(client.post("/api/v1/events", json=body | {"tenant": working_tenant}, headers=headers))
    assert response.json["status"] == "sent"


def test_the_use_of_a_key_is_recorded(app: Flask, post: Post, working_tenant: str) -> None:
    post()
    with app.app_context():
        ((key, owner),) = api_keys.list_all()
        assert key.last_used_at is not None
        assert key.last_used_ip == "127.0.0.1"
        assert owner
        assert owner.domain == "acme.example"


# Bad input


INVALID: list[tuple[bytes, str, int]] = [
    (b"not json", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b"{}" + b" " * 2_000_000, "application/json", 413),
    (b"{}", "text/plain", 415),
    (b"type=queue.call_lost", "application/x-www-form-urlencoded", 415),
    (b"{}", "application/json", 422),
    (b'{"type": "queue.exploded", "data": {}}', "application/json", 422),
    (b'{"type": "queue.call_lost", "data": {"caller_number": "1"}}', "application/cloudevents+json", 422),
    (b'{"type": "queue.call_lost", "data": {"queue_number": [], "caller_number": "1"}}', "application/json", 422),
    (b'{"id": "' + b"x" * 10_000 + b'", "type": "queue.call_lost", "data": {}}', "application/json", 422),
    (EVENT % rb"\u0000", "application/json", 422),
]


def test_a_body_without_a_valid_event_is_rejected_and_nothing_is_recorded(
    app: Flask, client: FlaskClient, key: str, working_tenant: str, subtests: pytest.Subtests
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    for body, media_type, status in INVALID:
        with subtests.test(media_type, body=body[:60], status=status):
            response = read(client.post("/api/v1/events", data=body, content_type=media_type, headers=headers))
            assert response.status_code == status
            assert response.content_type == "application/problem+json"
            assert response.json["status"] == status
            assert response.json["detail"]
            if status == 422:
                assert all(error["field"] and error["message"] for error in response.json["errors"])
                assert response.json["errors"]
            with app.app_context(), every_tenant():
                assert db.session.scalar(select(func.count()).select_from(RecordedEvent)) == 0


SENT = b'{"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "1", "caller_name": "%s"}}'


FAULTY: list[tuple[bytes, dict[str, str], str]] = [
    (SENT % b"M\xfcller", {}, "M\ufffdller"),
    (SENT % b"M\xfcller", {"Content-Type": "application/json; charset=ISO-8859-1"}, "Müller"),
    ((SENT % b"Ana").decode().encode("utf-16"), {}, "Ana"),
    *(
        (
            (SENT % "Müller".encode()).decode().encode("utf-8-sig"),
            {"Content-Type": f"application/json; charset={name}"},
            "Müller",
        )
        for name in ("utf-8", "UTF8", "iso-8859-1")
    ),
    (
        gzip.compress(SENT[:20], mtime=0) + gzip.compress(SENT[20:] % b"Ana", mtime=0),
        {"Content-Encoding": "gzip"},
        "Ana",
    ),
    (gzip.compress(SENT % b"Ana", mtime=0), {"Content-Encoding": "gzip, identity"}, "Ana"),
    (gzip.compress(SENT % b"Ana", mtime=0) + b"\n", {"Content-Encoding": "gzip"}, "Ana"),
    (gzip.compress(SENT % b"Ana", mtime=0), {"Content-Encoding": "gzip"}, "Ana"),
    (gzip.compress(SENT % b"Ana", mtime=0), {"Content-Encoding": "X-GZIP"}, "Ana"),
    (SENT % b"a\tb\r\n\x00c", {}, "a b c"),
    (SENT % rb"\u001b\ud83dx", {}, "\ufffdx"),
    (SENT % (b"x" * 300), {}, "x" * 200),
]


def test_a_fault_in_a_detail_does_not_lose_the_event(
    app: Flask, client: FlaskClient, key: str, working_tenant: str, subtests: pytest.Subtests
) -> None:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for body, headers, kept in FAULTY:
        with subtests.test(kept[:60], headers=headers), app.app_context():
            sql("DELETE FROM storms")
            sql("DELETE FROM events")
            result = read(client.post("/api/v1/events", data=body, headers=given | headers)).json
            assert result["status"] == "sent"
            assert all(warning["field"] == "data.caller_name" and warning["message"] for warning in result["warnings"])
            assert bool(result["warnings"]) is (kept not in {"Ana", "Müller"})
            assert sql("SELECT data->>'caller_name', warnings FROM events") == [(kept, result["warnings"])]


def test_the_warnings_are_returned_for_a_repeat_too_and_shown_in_the_pages(
    admin: FlaskClient, post: Post, working_tenant: str
) -> None:
    data = CALL_LOST | {"waited_seconds": -1}
    warning = {"field": "data.waited_seconds", "message": "This was left out. Send a whole number from 0 to 604800."}
    for duplicate in (False, True):
        result = post(data=data, id="one").json
        assert (result["duplicate"], result["warnings"]) == (duplicate, [warning])
    log = admin.get(f"/tenants/{working_tenant}/deliveries").text
    assert "Warnings" in log
    page = re.search(r'id="event-link-[^"]*" href="([^"]*)"', log)
    assert page
    for url in (page[1], f"/tenants/{working_tenant}/connect"):
        text = admin.get(url).text
        assert warning["message"] in text
        assert warning["field"] in text
    assert post(id="two").json["warnings"] == []
    assert warning["message"] not in admin.get(f"/tenants/{working_tenant}/connect").text


def test_a_wrongly_declared_character_set_is_a_warning(client: FlaskClient, key: str, working_tenant: str) -> None:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json; charset=utf-16le"}
    result = read(client.post("/api/v1/events", data=SENT % "Müller".encode(), headers=given)).json
    assert (result["status"], [warning["field"] for warning in result["warnings"]]) == ("sent", ["Content-Type"])


COMPRESSED: list[tuple[bytes, str, int]] = [
    (gzip.compress(b"{}" + b" " * 2_000_000, mtime=0), "gzip", 413),
    (gzip.compress(b"{}", mtime=0) + gzip.compress(b" " * 2_000_000, mtime=0), "gzip", 413),
    (gzip.compress(b"{}", mtime=0) + gzip.compress(b" ", mtime=0)[:-9], "gzip", 400),
    (b"", "gzip", 400),
    (gzip.compress(SENT % b"Ana", mtime=0)[:-9], "gzip", 400),
    (SENT % b"Ana", "gzip", 400),
    (SENT % b"Ana", "br", 415),
    (SENT % b"Ana", "gzip, gzip", 415),
]


def test_a_compressed_body_is_bounded_and_checked(client: FlaskClient, key: str, working_tenant: str) -> None:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for body, encoding, status in COMPRESSED:
        response = read(client.post("/api/v1/events", data=body, headers=given | {"Content-Encoding": encoding}))
        assert (response.status_code, response.json["status"]) == (status, status), (encoding, body[:60])
        assert response.headers.get("Accept-Encoding") == ("gzip" if status == 415 else None), encoding


def test_a_signature_covers_the_body_as_it_is_sent(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    with app.app_context():
        issued = api_keys.issue(tenant_service.find(working_tenant), signed=True)
    assert issued.signing_secret
    headers = {"Authorization": f"Bearer {issued.secret}", "Content-Type": "application/json"}
    for body, encoding in ((gzip.compress(SENT % b"Ana", mtime=0), "gzip"), (SENT % b"M\xfcller", "")):
        unsigned = headers | {"Content-Encoding": encoding}
        signed = unsigned | signature_headers(issued.signing_secret, body, message_id=f"msg{encoding}")
        for given, status in ((signed, 200), (unsigned, 401), (signed | {"webhook-id": "other"}, 401)):
            assert client.post("/api/v1/events", data=body, headers=given).status_code == status


BINARY = {"ce-specversion": "1.0", "ce-type": "queue.call_lost", "ce-id": "one", "ce-source": "/pbx"}


def test_cloudevents_in_binary_mode(app: Flask, client: FlaskClient, key: str, working_tenant: str) -> None:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **BINARY}
    time = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    given |= {"ce-time": time.isoformat().replace("+00:00", "Z"), "ce-extension": "x%20y"}
    others = {"Content-Type": ""}, {"Content-Type": "application/vnd.pbx+json"}, {"CE-Tenant": "acme.example"}
    for headers in ({}, *others):
        with app.app_context():
            sql("DELETE FROM events")
        response = read(client.post("/api/v1/events", data=json.dumps(CALL_LOST), headers=given | headers))
        result = response.json["status"], response.json["id"], response.json["warnings"]
        assert result == ("sent", "one", []), headers
        with app.app_context():
            found = sql("SELECT type, data, occurred_at FROM events")
        assert found == [("queue.call_lost", CALL_LOST, time)], headers


def test_the_attributes_of_binary_mode_are_decoded_and_checked(
    client: FlaskClient, key: str, working_tenant: str
) -> None:
    def post(**headers: str) -> Any:
        given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **BINARY, **headers}
        return read(client.post("/api/v1/events", data=json.dumps(CALL_LOST), headers=given))

    assert post(**{"ce-id": "Kova%C4%8D"}).json["id"] == "Kovač"
    assert [warning["field"] for warning in post(**{"ce-time": "now"}).json["warnings"]] == ["time"]
    assert post(**{"ce-type": "queue.exploded"}).status_code == 422
    assert post(**{"ce-tenant": "globex.example"}).status_code == 403
    assert post(**{"Content-Type": "text/plain"}).status_code == 415
    assert post(**{"Content-Type": "application/cloudevents-batch+json"}).status_code == 415


def test_the_media_type_decides_about_structured_mode(client: FlaskClient, key: str, working_tenant: str) -> None:
    def post(**headers: str) -> Any:
        body = json.dumps({"type": "queue.call_lost", "id": "in the body", "data": CALL_LOST})
        given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
        return read(client.post("/api/v1/events", data=body, headers=given))

    structured = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    for headers in (structured | BINARY, {"ce-source": "/x", "ce-id": "one"}, {"ce-foo": "1"}):
        response = post(**headers)
        assert (response.status_code, response.json["id"]) == (200, "in the body"), headers
    for headers in ({"ce-type": "queue.call_lost"}, {"ce-specversion": "1.0"}):
        assert post(**headers).status_code == 422, headers


def test_a_batch_is_415(client: FlaskClient, key: str, working_tenant: str) -> None:
    body = json.dumps([{"type": "queue.call_lost", "data": CALL_LOST}])
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json"}
    response = read(client.post("/api/v1/events", data=body, headers=headers))
    assert (response.status_code, "application/cloudevents+json" in response.json["detail"]) == (415, True)


def test_a_signature_does_not_cover_the_headers_of_binary_mode(
    app: Flask, client: FlaskClient, working_tenant: str
) -> None:
    with app.app_context():
        issued = api_keys.issue(tenant_service.find(working_tenant), signed=True)
    assert issued.signing_secret
    body = json.dumps(CALL_LOST)
    headers = {"Authorization": f"Bearer {issued.secret}", "Content-Type": "application/json"} | BINARY
    headers |= signature_headers(issued.signing_secret, body)
    response = read(client.post("/api/v1/events", data=body, headers=headers))
    assert (response.status_code, "ce-" in response.json["detail"]) == (422, True)
    with app.app_context():
        assert sql("SELECT count(*) FROM events") == [(0,)]


def test_data_may_be_in_base64(app: Flask, client: FlaskClient, key: str, working_tenant: str) -> None:
    encoded = base64.b64encode(json.dumps(CALL_LOST).encode()).decode()
    body = {"specversion": "1.0", "id": "one", "type": "queue.call_lost", "data_base64": encoded}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents+json"}
    assert read(client.post("/api/v1/events", data=json.dumps(body), headers=headers)).json["status"] == "sent"
    with app.app_context():
        assert sql("SELECT data FROM events") == [(CALL_LOST,)]


def test_too_many_events_of_one_tenant_are_429(
    app: Flask, post: Post, working_tenant: str, globex: str, system_key: str, client: FlaskClient
) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "2 per hour"})
    try:
        responses = [post() for _ in range(3)]
        body = {"type": "queue.call_lost", "tenant": globex, "data": CALL_LOST}
        other = read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"}))
    finally:
        app.extensions["settings"] = settings
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert 0 < int(responses[2].headers["Retry-After"]) <= 3600
    assert other.status_code == 200, "another tenant is not affected"


def test_a_body_in_chunks_is_limited_too(client: FlaskClient, key: str, working_tenant: str) -> None:
    event = b'{"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "1"}}'
    for blanks in (65_536, 2_000_000):
        response = client.post(
            "/api/v1/events",
            input_stream=BytesIO(event + b" " * blanks),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
        )
        assert response.status_code == 413


def test_a_slash_at_the_end_of_the_url_is_accepted(client: FlaskClient, key: str, working_tenant: str) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    response = client.post("/api/v1/events/", json=body, headers={"Authorization": f"Bearer {key}"})
    assert read(response).json["status"] == "sent"
