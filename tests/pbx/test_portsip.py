"""What PortSIP sends by itself: which of it becomes an event, and that it is always acknowledged with 200."""

import base64
import json
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.pbx.examples import PORTSIP_PAYLOADS
from portal.pbx.keys import IssuedKey
from portal.pbx.portsip import MOST_LOST, SHAPES
from portal.tenants import directory
from tests.ready import PEOPLE, Answer, read
from tests.signed import stamp
from tests.smtp_peer import SmtpPeer, unstuffed
from tests.sql import sql

ADDRESS = "/api/v1/events/portsip"
SLA, STATUS = PORTSIP_PAYLOADS["queue_sla_breached"], PORTSIP_PAYLOADS["queue_caller_status"]
CALLER = STATUS["updated_callers"][0]


@pytest.fixture
def portsip(client: FlaskClient, key: str) -> Any:
    """A function that posts a payload as PortSIP does, with the key as a Bearer token."""

    def post(payload: Any, address: str = ADDRESS, secret: str = key) -> Answer:
        return read(client.post(address, json=payload, headers={"Authorization": f"Bearer {secret}"}))

    return post


def recorded(app: Flask) -> list[tuple[str, dict[str, Any]]]:
    with app.app_context():
        return [(kind, data) for kind, data in sql("SELECT type, data FROM events ORDER BY id")]


@pytest.mark.parametrize("name", PORTSIP_PAYLOADS)
def test_each_payload_becomes_its_event_and_a_mail(
    app: Flask, portsip: Any, ready: str, peer: SmtpPeer, name: str
) -> None:
    answer = portsip(PORTSIP_PAYLOADS[name])
    assert answer.status_code == 200, answer.json
    assert [each["status"] for each in answer.json["events"]] == ["sent"]
    assert answer.json["detail"] is None
    ((kind, data),) = recorded(app)
    assert kind == SHAPES[name].kind.type
    assert set(data) == set(SHAPES[name].fields)
    assert peer.mails[0].recipients == PEOPLE


def test_the_values_are_the_portals_own(app: Flask, portsip: Any, ready: str, peer: SmtpPeer) -> None:
    portsip(SLA | {"timestamp": str(int(time.time()) - 5), "queue_id": 8000})
    ((_, data),) = recorded(app)
    assert data == {
        "queue_number": "8000",
        "caller_number": "+442079460123",
        "sla_seconds": 60,
        "callers_waiting": 4,
        "callers_breached": 2,
    }
    assert b"1 minute" in unstuffed(peer.mails[0].content)


def test_the_new_user_is_mailed_too(portsip: Any, ready: str, peer: SmtpPeer) -> None:
    portsip(PORTSIP_PAYLOADS["extension_created"])
    assert [mail.recipients for mail in peer.mails] == [PEOPLE, ["ana.kovac@acme.example"]]


@pytest.mark.parametrize(
    "payload", [*PORTSIP_PAYLOADS.values(), SLA | {"uuid": "5f1c7a2e-8d1b-4c39-9c11-0f5d1a2b3c4d"}]
)
def test_what_comes_again_sends_nothing(portsip: Any, ready: str, peer: SmtpPeer, payload: dict[str, Any]) -> None:
    first, second = portsip(payload).json["events"], portsip(payload).json["events"]
    count = len(peer.mails)
    assert [each["duplicate"] for each in first + second] == [False, True]
    assert first[0]["id"] == payload.get("uuid", first[0]["id"])
    assert first[0]["id"] == second[0]["id"]
    assert len(peer.mails) == count


def test_each_caller_who_hung_up_is_a_lost_call(app: Flask, portsip: Any, ready: str) -> None:
    reasons = ["hangup", "agent_answered", "overflow", "enqueue", "callback", "hangup"]
    callers = [CALLER | {"session_id": str(n), "reason": reason} for n, reason in enumerate(reasons)]
    callers.append(CALLER | {"session_id": "9", "type": "callback"})
    answer = portsip(STATUS | {"updated_callers": callers, "uuid": "one"})
    assert len(answer.json["events"]) == 2
    assert [data["call_id"] for _, data in recorded(app)] == ["0", "5"]


def test_a_payload_holds_nobody_up_with_its_callers(app: Flask, portsip: Any, ready: str) -> None:
    assert len(portsip(STATUS | {"updated_callers": [CALLER | {"reason": "hangup"}] * 3}).json["events"]) == 1
    callers = [CALLER | {"session_id": str(n), "reason": "hangup"} for n in range(MOST_LOST + 1)]
    answer = portsip(STATUS | {"updated_callers": callers})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "updated_callers"
    assert len(recorded(app)) == 1


@pytest.mark.parametrize(
    "payload",
    [
        STATUS | {"updated_callers": [CALLER | {"reason": "agent_answered"}]},
        STATUS | {"updated_callers": []},
        {"event_type": "call_start", "session_id": "1", "caller": "101"},
        {"event_type": "extension_destroyed", "extension_number": "101"},
    ],
)
def test_what_is_of_no_use_is_acknowledged_and_recorded_nowhere(
    app: Flask, portsip: Any, ready: str, payload: dict[str, Any]
) -> None:
    answer = portsip(payload)
    assert (answer.status_code, answer.json["events"]) == (200, [])
    assert "recorded nowhere" in answer.json["detail"]
    assert recorded(app) == []
    with app.app_context():
        assert sql("SELECT count(*) FROM rejected_calls") == [(0,)]
        assert sql("SELECT last_used_at IS NOT NULL FROM pbx_keys") == [(True,)]


def test_a_detail_that_is_wrong_is_left_out_and_a_hidden_number_is_said_to_be(
    app: Flask, portsip: Any, ready: str
) -> None:
    answer = portsip(SLA | {"caller": "", "waiting_callers": "many", "timestamp": "1764000000000000"})
    assert answer.status_code == 200
    ((_, data),) = recorded(app)
    assert data["caller_number"] == "anonymous"
    assert "callers_waiting" not in data


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "event_type"),
        ({"event_type": 7}, "event_type"),
        (SLA | {"queue_id": None}, "queue_id"),
        (SLA | {"sla_time_secs": "soon"}, "sla_time_secs"),
        (STATUS | {"updated_callers": "all"}, "updated_callers"),
        (STATUS | {"updated_callers": [7]}, "updated_callers"),
        ({"event_type": "extension_created"}, "extension_number"),
    ],
)
def test_what_is_missing_is_told_in_portsips_words(
    app: Flask, portsip: Any, ready: str, payload: dict[str, Any], field: str
) -> None:
    answer = portsip(payload)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json["errors"]] == [field]
    with app.app_context():
        ((reason, detail),) = sql("SELECT reason, detail FROM rejected_calls")
    assert reason == "invalid"
    assert field in detail


def test_the_key_decides_the_tenant(app: Flask, portsip: Any, ready: str, globex: str, system_key: str) -> None:
    assert portsip(SLA, f"{ADDRESS}?tenant={ready}").status_code == 200
    assert portsip(SLA, f"{ADDRESS}?tenant={globex}").status_code == 403
    nameless = portsip(SLA, secret=system_key)
    assert (nameless.status_code, nameless.json["errors"][0]["field"]) == (422, "tenant")
    named = portsip(SLA | {"caller": "7"}, f"{ADDRESS}?tenant={ready}", system_key)
    assert named.json["events"][0]["status"] == "sent"
    assert portsip(SLA, f"{ADDRESS}?tenant=%00", system_key).status_code == 422
    assert portsip(SLA, secret="wrong").status_code == 401
    assert portsip({"event_type": "call_start"}, secret="wrong").status_code == 401


def test_basic_works_and_a_key_that_requires_a_signature_does_not(
    app: Flask, client: FlaskClient, ready: str, key: str
) -> None:
    basic = {"Authorization": "Basic " + base64.b64encode(f"portsip:{key}".encode()).decode()}
    assert client.post(ADDRESS, json=SLA, headers=basic).status_code == 200
    with app.app_context():
        signed = keys.issue(directory.find(ready), signed=True).secret
    answer = client.post(ADDRESS, json=SLA, headers={"Authorization": f"Bearer {signed}"})
    assert (answer.status_code, "signature" in answer.get_json()["detail"]) == (401, True)


def test_a_signature_does_not_cover_the_tenant_in_the_address(
    app: Flask, client: FlaskClient, ready: str, globex: str
) -> None:
    body = json.dumps(SLA)
    with app.app_context():
        of_the_system, of_the_tenant = keys.issue(None, signed=True), keys.issue(directory.find(ready), signed=True)

    def post(key: IssuedKey, tenant: str) -> Answer:
        headers = stamp(key.signing_secret, body) | {"Authorization": f"Bearer {key.secret}"}
        address = f"{ADDRESS}?tenant={tenant}"
        return read(client.post(address, data=body, headers=headers, content_type="application/json"))

    for tenant in (ready, globex):
        answer = post(of_the_system, tenant)
        assert (answer.status_code, "use a key of the tenant's own" in answer.json["detail"]) == (422, True)
    assert not recorded(app)
    assert post(of_the_tenant, ready).status_code == 200


@pytest.mark.parametrize("name", ["timestamp", "tenant_id"])
def test_what_is_nested_deeply_is_no_fault_of_ours(client: FlaskClient, name: str) -> None:
    statuses = set()
    for depth in range(800, 1000):  # about as deep as is read: one deeper is one too deep
        body = f'{{"event_type": "extension_created", "{name}": {"[" * depth}{"]" * depth}}}'
        statuses.add(client.post(ADDRESS, data=body, content_type="application/json").status_code)
    assert statuses == {401}


def test_who_may_not_call_is_told_so_once(app: Flask, client: FlaskClient, key: str) -> None:
    callers = [CALLER | {"caller": str(number)} for number in range(MOST_LOST)]
    answer = client.post(ADDRESS, json=STATUS | {"updated_callers": callers}, headers={"Authorization": "Bearer no"})
    assert answer.status_code == 401
    with app.app_context():
        assert [count for (count,) in sql("SELECT count FROM rejected_calls")] == [1]


def test_every_kind_that_portsip_reports_is_there() -> None:
    assert {shape.kind.type for shape in SHAPES.values()} == set(KINDS) - {
        "queue.callback_completed",
        "queue.callback_failed",
    }
