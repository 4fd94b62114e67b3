"""The webhook with random input: valid by its description, invalid, and any bytes. Each response is a described one."""

import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from portal.pbx.adapters.portsip import CALLERS_FIELD, EXAMPLES, ID_FIELDS, TIME_FIELDS
from portal.pbx.adapters.registry import payload_formats
from tests.required_fields import described_as_required, needed, sample_of
from tests.security.conftest import OF_EVENTS
from tests.security.test_fuzz_mail import HEADERS, TEXT
from tests.security.test_headers import Content, assert_guarded
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, key, peer, working_tenant

__all__ = ["key", "peer", "working_tenant"]

pytestmark = pytest.mark.slow

JSON_TYPE = {"Content-Type": "application/json"}
EVENTS_PATH = "/api/v1/events"
PORTSIP_PATH = "/api/v1/events/portsip"
PATHS = [EVENTS_PATH, *(f"{EVENTS_PATH}/{adapter.name}" for adapter, _ in payload_formats())]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CALLER = EXAMPLES["queue_caller_status"][CALLERS_FIELD][0]
DESCRIBED_STATUSES = {200, 400, 401, 403, 409, 413, 415, 422, 429}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, 1e308, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def no_rate_limit(app: Flask) -> Iterator[None]:
    """A rate limit that is never reached: otherwise it would reject everything else."""
    before = app.extensions["settings"]
    app.extensions["settings"] = before.model_copy(update={"event_rate_limit": "10000000 per minute"})
    yield
    app.extensions["settings"] = before


@pytest.fixture(scope="module")
def schema(built_app: Flask) -> Any:
    """The description that the portal serves."""
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", built_app)


def assert_emails_are_intact(peer: SmtpPeer) -> None:
    """Assert that no email has a header or a recipient that the portal did not set."""
    for conversation in peer.conversations:
        for mail in conversation.messages:
            message = message_from_bytes(mail.content, policy=policy.default)
            assert set(message.keys()) <= HEADERS
            assert not any("evil" in address for address in mail.recipients)
    peer.conversations.clear()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_requests_that_are_valid_or_invalid_by_the_description(
    schema: Any, key: str, working_tenant: str, peer: SmtpPeer, mode: GenerationMode, path: str
) -> None:
    seen = set()

    @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
    def post(case: "schemathesis.Case[Any]") -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        case.validate_response(response, checks=CHECKS)
        seen.add(response.status_code)

    post()
    assert seen & {200, 422}
    assert_emails_are_intact(peer)


def send(client: FlaskClient, key: str, body: bytes, path: str = EVENTS_PATH, **headers: str) -> int:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    response = client.post(path, data=body, headers=given)
    assert response.status_code in DESCRIBED_STATUSES, (response.status_code, body)
    assert_guarded(response)
    assert json.loads(response.data)
    return response.status_code


def test_any_values_in_an_event(client: FlaskClient, key: str, working_tenant: str, peer: SmtpPeer) -> None:
    names = st.sampled_from([*CALL_LOST, "caller_name", "queue_name", "call_id", "reason", "position"])
    events = st.dictionaries(names, TEXT | ANYTHING).map(lambda data: {**CALL_LOST, **data})
    others = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "time", "tenant", "source", "x"), ANYTHING))

    @OF_EVENTS
    @given(data=events, attributes=others)
    def post(data: dict[str, Any], attributes: dict[str, Any]) -> None:
        send(client, key, json.dumps({"type": "queue.call_lost", **attributes, "data": data}).encode())

    post()
    assert_emails_are_intact(peer)


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_an_event_with_a_usable_queue_or_extension_number_is_recorded(
    app: Flask, client: FlaskClient, key: str, working_tenant: str, event_type: EventType
) -> None:
    required = sample_of(event_type, needed(event_type))
    expected = described_as_required(event_type) - set(required)
    optional = dict.fromkeys(sorted(set(event_type.fields.model_fields) - set(required)), ANYTHING | TEXT)
    attributes = dict.fromkeys(("time", "source", "specversion", "datacontenttype", "subject", "x"), ANYTHING)
    before = recorded_events(app)
    posted: set[str] = set()

    @OF_EVENTS
    @given(
        data=st.fixed_dictionaries({}, optional=optional | {"unknown": ANYTHING}),
        attributes=st.fixed_dictionaries({}, optional=attributes),
        escape=st.booleans(),
    )
    def post(data: dict[str, Any], attributes: dict[str, Any], escape: bool) -> None:
        id_ = f"{event_type.type}-{len(posted)}"
        event = {"id": id_, **attributes, "type": event_type.type, "data": {**data, **required}}
        body = json.dumps(event, ensure_ascii=escape).encode("utf-8", "surrogatepass")
        response = client.post(EVENTS_PATH, data=body, headers={"Authorization": f"Bearer {key}"} | JSON_TYPE)
        assert response.status_code == 200, (response.get_json(), body)
        assert response.get_json()["id"] == id_
        names = {f"data.{name}" for name in {*data, *expected}} | set(attributes)
        assert {warning["field"] for warning in response.get_json()["warnings"]} <= names
        posted.add(id_)

    post()
    assert recorded_events(app) - before == posted


def recorded_events(app: Flask) -> set[str]:
    with app.app_context():
        return {external_id for (external_id,) in sql("SELECT external_id FROM events")}


def test_any_values_in_a_payload_of_portsip(client: FlaskClient, key: str, working_tenant: str, peer: SmtpPeer) -> None:
    names = st.sampled_from([*ID_FIELDS, *TIME_FIELDS, *CALLER, CALLERS_FIELD])
    values = st.dictionaries(names, TEXT | ANYTHING)
    changed_callers = st.lists(values.map(lambda caller: {**CALLER, **caller}), max_size=3)
    callers = st.fixed_dictionaries({CALLERS_FIELD: changed_callers})

    @OF_EVENTS
    @given(known=st.sampled_from(list(EXAMPLES.values())), fields=values, callers=callers | st.just({}))
    def post(known: dict[str, Any], fields: dict[str, Any], callers: dict[str, Any]) -> None:
        send(client, key, json.dumps({**known, **fields, **callers}).encode(), PORTSIP_PATH)

    post()
    assert_emails_are_intact(peer)


def test_any_bytes_and_headers(app: Flask, client: FlaskClient, key: str, working_tenant: str) -> None:
    header = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=50)

    @given(body=st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()), value=header)
    @example(b'{"type": "queue.call_lost", "data": {}}', "Basic " + "A" * 50)
    def post(body: bytes, value: str) -> None:
        assert send(client, key, body) in {400, 422}
        assert send(client, key, body, Authorization=value) == 401
        assert send(client, key, body, **{"Content-Type": value}) in {400, 415, 422}

    post()
    with app.app_context():
        assert sql("SELECT count(*) FROM events") == [(0,)]


def test_values_are_escaped_in_the_pages(
    app: Flask, admin: FlaskClient, system: FlaskClient, client: FlaskClient, key: str, working_tenant: str
) -> None:
    """The log shows values from outside as text, never as markup."""

    @given(name=TEXT, queue=TEXT)
    def post(name: str, queue: str) -> None:
        values = {"caller_name": f"a{name}"[:200], "queue_name": f"b{queue}"[:200], "queue_number": "1<b>1"}
        send(client, key, json.dumps({"type": "queue.call_lost", "data": {**CALL_LOST, **values}}).encode())

    post()
    for browser in (admin, system):
        page = browser.get(f"/tenants/{working_tenant}/deliveries").text
        assert not Content(page).faults
        assert "<script>alert" not in page
        assert "onerror=alert(1)>" not in page.replace("&gt;", "")
        assert "<b>1" not in page
    assert PEOPLE
