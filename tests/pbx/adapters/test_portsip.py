"""PortSIP's own payloads: which become events, and that all are acknowledged with 200."""

import base64
import json
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.events.types import EVENT_TYPES
from portal.pbx import api_keys, webhook_views
from portal.pbx.adapters.portsip import EXAMPLES, MAX_LOST_CALLS, PAYLOAD_TYPES
from portal.pbx.adapters.portsip import read as read_payload
from portal.pbx.api_keys import IssuedKey
from portal.tenants import service as tenant_service
from tests.signing import signature_headers
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Answer, read

URL = "/api/v1/events/portsip"
SLA_BREACHED, CALLER_STATUS = EXAMPLES["queue_sla_breached"], EXAMPLES["queue_caller_status"]
CALLER = CALLER_STATUS["updated_callers"][0]


def with_(payload: Any, **fields: Any) -> dict[str, Any]:
    return {**payload, **fields}


@pytest.fixture
def portsip(client: FlaskClient, key: str) -> Any:
    """A function that posts a payload as PortSIP does, with the key as a Bearer token."""

    def post(payload: Any, url: str = URL, key: str = key) -> Answer:
        return read(client.post(url, json=payload, headers={"Authorization": f"Bearer {key}"}))

    return post


def recorded(app: Flask) -> list[tuple[str, dict[str, Any]]]:
    with app.app_context():
        return [(type_, data) for type_, data in sql("SELECT type, data FROM events ORDER BY id")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_payload_becomes_its_event_and_an_email(
    app: Flask, portsip: Any, working_tenant: str, peer: SmtpPeer, name: str
) -> None:
    response = portsip(EXAMPLES[name])
    assert response.status_code == 200, response.json
    assert [event["status"] for event in response.json["events"]] == ["sent"]
    assert response.json["detail"] is None
    ((type_, data),) = recorded(app)
    assert type_ == PAYLOAD_TYPES[name].event_type.type
    assert set(data) == set(PAYLOAD_TYPES[name].fields)
    assert peer.messages[0].recipients == PEOPLE


def test_the_values_are_converted(app: Flask, portsip: Any, working_tenant: str, peer: SmtpPeer) -> None:
    portsip(with_(SLA_BREACHED, timestamp=str(int(time.time()) - 5), queue_id=8000))
    ((_, data),) = recorded(app)
    assert data == {
        "queue_number": "8000",
        "caller_number": "+442079460123",
        "sla_seconds": 60,
        "callers_waiting": 4,
        "callers_breached": 2,
    }
    assert b"1 minute" in peer.messages[0].content


def test_the_new_user_is_emailed_too(portsip: Any, working_tenant: str, peer: SmtpPeer) -> None:
    portsip(EXAMPLES["extension_created"])
    assert [mail.recipients for mail in peer.messages] == [PEOPLE, ["ana.kovac@acme.example"]]


@pytest.mark.parametrize(
    "payload", [*EXAMPLES.values(), with_(SLA_BREACHED, uuid="5f1c7a2e-8d1b-4c39-9c11-0f5d1a2b3c4d")]
)
def test_a_repeated_payload_sends_nothing(
    portsip: Any, working_tenant: str, peer: SmtpPeer, payload: dict[str, Any]
) -> None:
    first, second = portsip(payload).json["events"], portsip(payload).json["events"]
    count = len(peer.messages)
    assert [event["duplicate"] for event in first + second] == [False, True]
    assert first[0]["id"] == payload.get("uuid", first[0]["id"])
    assert first[0]["id"] == second[0]["id"]
    assert len(peer.messages) == count


def test_each_caller_who_hung_up_is_a_lost_call(app: Flask, portsip: Any, working_tenant: str) -> None:
    reasons = ["hangup", "agent_answered", "overflow", "enqueue", "callback", "hangup"]
    callers = [with_(CALLER, session_id=str(number), reason=reason) for number, reason in enumerate(reasons)]
    callers.append(with_(CALLER, session_id="9", type="callback"))
    response = portsip(with_(CALLER_STATUS, updated_callers=callers, uuid="one"))
    assert len(response.json["events"]) == 2
    assert [data["call_id"] for _, data in recorded(app)] == ["0", "5"]


@pytest.mark.slow
def test_the_callers_in_a_payload_are_limited(app: Flask, portsip: Any, working_tenant: str) -> None:
    same = [with_(CALLER, reason="hangup")] * 3
    assert len(portsip(with_(CALLER_STATUS, updated_callers=same)).json["events"]) == 1
    callers = [with_(CALLER, session_id=str(number), reason="hangup") for number in range(MAX_LOST_CALLS + 1)]
    payload = with_(CALLER_STATUS, updated_callers=callers, queue_id="8001")
    for is_repeat in (False, True):
        response = portsip(payload)
        assert [event["duplicate"] for event in response.json["events"]] == [is_repeat] * MAX_LOST_CALLS
        warning = f"Only the first {MAX_LOST_CALLS} lost calls were recorded. {MAX_LOST_CALLS + 1} were sent."
        assert response.json["events"][0]["warnings"] == [{"field": "updated_callers", "message": warning}]
    assert [data["call_id"] for _, data in recorded(app)][1:] == [str(number) for number in range(MAX_LOST_CALLS)]
    many = [{"session_id": str(number), "reason": "hangup"} for number in range(1_200)]
    began = time.process_time()
    assert len(read_payload(json.dumps(with_(CALLER_STATUS, updated_callers=many)), None)) == MAX_LOST_CALLS
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("reason", ["Hangup", "hangup ", "HANG_UP", "hang-up", "abandoned", "no_answer", "Timeout", 1])
def test_a_reason_in_another_form_and_an_unknown_one_are_lost_calls(
    app: Flask, portsip: Any, working_tenant: str, reason: object
) -> None:
    caller = with_(CALLER, reason=reason, type="Normal")
    (event,) = portsip(with_(CALLER_STATUS, updated_callers=[caller])).json["events"]
    is_known = isinstance(reason, str) and reason[:1] in "hH"
    assert [warning["field"] for warning in event["warnings"]] == ([] if is_known else ["reason"])
    assert len(recorded(app)) == 1


@pytest.mark.parametrize(
    "caller",
    [
        *({"reason": reason} for reason in ("Agent_Answered", "agent answered", "answered", "connected", "ENQUEUE")),
        *({"reason": reason} for reason in ("Overflow", "Callback ", "enqueue", "", None)),
        {"type": "Callback"},
        {"type": " CALLBACK"},
    ],
)
def test_a_caller_who_was_answered_or_still_waits_is_not_lost(
    app: Flask, portsip: Any, working_tenant: str, caller: dict[str, Any]
) -> None:
    response = portsip(with_(CALLER_STATUS, updated_callers=[with_(CALLER, **caller)]))
    assert (response.status_code, response.json["events"]) == (200, [])


@pytest.mark.parametrize("callers", [CALLER, {"0": CALLER}, json.dumps([CALLER]), json.dumps(CALLER)])
def test_callers_in_another_form_are_accepted(app: Flask, portsip: Any, working_tenant: str, callers: Any) -> None:
    (event,) = portsip(with_(CALLER_STATUS, updated_callers=callers)).json["events"]
    assert {warning["field"] for warning in event["warnings"]} == {"updated_callers"}
    ((_, data),) = recorded(app)
    assert data["caller_number"] == CALLER["caller_number"]


@pytest.mark.parametrize("name", ["Queue_SLA_Breached", " queue_sla_breached", "queue-sla-breached"])
def test_an_event_type_in_another_form_is_accepted(portsip: Any, working_tenant: str, name: str) -> None:
    (event,) = portsip(with_(SLA_BREACHED, event_type=name)).json["events"]
    assert [warning["field"] for warning in event["warnings"]] == ["event_type"]


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "application/json; charset=iso-8859-1"])
def test_a_byte_order_mark_is_accepted(client: FlaskClient, key: str, working_tenant: str, content_type: str) -> None:
    body, headers = json.dumps(SLA_BREACHED).encode("utf-8-sig"), {"Authorization": f"Bearer {key}"}
    response = read(client.post(URL, data=body, headers=headers, content_type=content_type))
    assert [event["warnings"] for event in response.json["events"]] == [[]]


@pytest.mark.parametrize(
    "payload",
    [
        with_(CALLER_STATUS, updated_callers=[with_(CALLER, reason="agent_answered")]),
        with_(CALLER_STATUS, updated_callers=[]),
        {"event_type": "call_start", "session_id": "1", "caller": "101"},
        {"event_type": "extension_destroyed", "extension_number": "101"},
    ],
)
def test_a_payload_without_an_event_is_acknowledged_and_not_recorded(
    app: Flask, portsip: Any, working_tenant: str, payload: dict[str, Any]
) -> None:
    response = portsip(payload)
    assert (response.status_code, response.json["events"]) == (200, [])
    assert "not recorded" in response.json["detail"]
    assert recorded(app) == []
    with app.app_context():
        assert sql("SELECT count(*) FROM rejected_requests") == [(0,)]
        assert sql("SELECT last_used_at IS NOT NULL FROM api_keys") == [(True,)]


def test_a_payload_without_an_event_is_checked_and_counted_like_any_other(
    app: Flask, portsip: Any, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        signed, revoked = api_keys.issue(tenant, signed=True), api_keys.issue(tenant)
        api_keys.revoke(revoked.row)
    for key in (signed, revoked):
        assert portsip({"event_type": "call_start"}, key=key.secret).status_code == 401
    with app.app_context():
        rejected = sql("SELECT reason, count FROM rejected_requests ORDER BY reason")
        assert rejected == [("no_signature", 1), ("revoked_key", 1)]
        assert sql("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL") == [(0,)]
    limited = app.extensions["settings"].model_copy(update={"event_rate_limit": "1 per 7 hours"})
    monkeypatch.setitem(app.extensions, "settings", limited)
    assert [portsip({"event_type": "call_start"}).status_code for _ in range(2)] == [200, 429]


def test_a_wrong_detail_is_left_out_and_a_hidden_number_is_anonymous(
    app: Flask, portsip: Any, working_tenant: str
) -> None:
    wrong = {"waiting_callers": "many", "timestamp": "1764000000000000", "sla_time_secs": "soon"}
    callers: list[Any] = ["", None, True, {}, []]
    for number, caller in enumerate(callers):
        (event,) = portsip(with_(SLA_BREACHED, caller=caller, uuid=str(number), **wrong)).json["events"]
        fields = {warning["field"] for warning in event["warnings"]}
        assert fields == {"waiting_callers", "time", "sla_time_secs"} | ({"caller"} if number > 1 else set())
    for _, data in recorded(app):
        assert data == {"queue_number": "8000", "caller_number": "anonymous", "callers_breached": 2}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "event_type"),
        ({"event_type": 7}, "event_type"),
        (with_(SLA_BREACHED, queue_id=None), "queue_id"),
        (with_(CALLER_STATUS, updated_callers="all"), "updated_callers"),
        (with_(CALLER_STATUS, updated_callers=[7]), "updated_callers"),
        ({"event_type": "extension_created"}, "extension_number"),
    ],
)
def test_an_error_names_portsips_field(
    app: Flask, portsip: Any, working_tenant: str, payload: dict[str, Any], field: str
) -> None:
    response = portsip(payload)
    assert response.status_code == 422
    assert [error["field"] for error in response.json["errors"]] == [field]
    with app.app_context():
        ((reason, detail),) = sql("SELECT reason, detail FROM rejected_requests")
    assert reason == "invalid"
    assert field in detail


def test_the_key_decides_the_tenant(
    app: Flask, portsip: Any, working_tenant: str, globex: str, system_key: str
) -> None:
    assert portsip(SLA_BREACHED, f"{URL}?tenant={working_tenant}").status_code == 200
    assert portsip(SLA_BREACHED, f"{URL}?tenant={globex}").status_code == 403
    nameless = portsip(SLA_BREACHED, key=system_key)
    assert (nameless.status_code, nameless.json["errors"][0]["field"]) == (422, "tenant")
    named = portsip(with_(SLA_BREACHED, caller="7"), f"{URL}?tenant={working_tenant}", system_key)
    assert named.json["events"][0]["status"] == "sent"
    assert portsip(SLA_BREACHED, f"{URL}?tenant=%00", system_key).status_code == 422
    assert portsip(SLA_BREACHED, key="wrong").status_code == 401
    assert portsip({"event_type": "call_start"}, key="wrong").status_code == 401


def test_basic_works_and_a_key_that_requires_a_signature_does_not(
    app: Flask, client: FlaskClient, working_tenant: str, key: str
) -> None:
    basic = {"Authorization": "Basic " + base64.b64encode(f"portsip:{key}".encode()).decode()}
    assert client.post(URL, json=SLA_BREACHED, headers=basic).status_code == 200
    with app.app_context():
        signed = api_keys.issue(tenant_service.find(working_tenant), signed=True).secret
    response = client.post(URL, json=SLA_BREACHED, headers={"Authorization": f"Bearer {signed}"})
    assert (response.status_code, "signature" in response.get_json()["detail"]) == (401, True)


def test_a_signature_does_not_cover_the_tenant_in_the_url(
    app: Flask, client: FlaskClient, working_tenant: str, globex: str
) -> None:
    body = json.dumps(SLA_BREACHED)
    with app.app_context():
        of_system = api_keys.issue(None, signed=True)
        of_tenant = api_keys.issue(tenant_service.find(working_tenant), signed=True)

    def post(key: IssuedKey, tenant: str) -> Answer:
        headers = signature_headers(key.signing_secret, body) | {"Authorization": f"Bearer {key.secret}"}
        url = f"{URL}?tenant={tenant}"
        return read(client.post(url, data=body, headers=headers, content_type="application/json"))

    for tenant in (working_tenant, globex):
        response = post(of_system, tenant)
        assert (response.status_code, "use a key of the tenant's own" in response.json["detail"]) == (422, True)
    assert not recorded(app)
    assert post(of_tenant, working_tenant).status_code == 200


@pytest.mark.parametrize("name", ["timestamp", "tenant_id"])
def test_deep_nesting_causes_no_server_error(client: FlaskClient, name: str) -> None:
    statuses = set()
    for depth in (*range(95, 105), *range(800, 1000)):  # around the portal's limit, and around Python's
        body = f'{{"event_type": "extension_created", "{name}": {"[" * depth}{"]" * depth}}}'
        statuses.add(client.post(URL, data=body, content_type="application/json").status_code)
    assert statuses == {401}


def test_a_payload_with_an_invalid_key_is_rejected_once(app: Flask, client: FlaskClient, key: str) -> None:
    callers = [with_(CALLER, caller=str(number)) for number in range(MAX_LOST_CALLS)]
    payload = with_(CALLER_STATUS, updated_callers=callers)
    response = client.post(URL, json=payload, headers={"Authorization": "Bearer no"})
    assert response.status_code == 401
    with app.app_context():
        assert [count for (count,) in sql("SELECT count FROM rejected_requests")] == [1]


def test_the_query_of_a_request_without_a_valid_key_is_not_parsed(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def parse_qs(query: str, **_: object) -> dict[str, list[str]]:
        parsed.append(query)
        return {}

    monkeypatch.setattr(webhook_views, "parse_qs", parse_qs)
    response = client.post(f"{URL}?tenant=acme.example", json=SLA_BREACHED, headers={"Authorization": "Bearer no"})
    assert (response.status_code, parsed) == (401, [])


def test_every_event_type_that_portsip_reports_is_there() -> None:
    assert {payload_type.event_type.type for payload_type in PAYLOAD_TYPES.values()} == set(EVENT_TYPES) - {
        "queue.callback_completed",
        "queue.callback_failed",
    }
