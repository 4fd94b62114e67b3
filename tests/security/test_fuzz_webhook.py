"""The webhook at random: what its description allows, what it forbids, and bytes. Each answer is one it describes."""

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

from portal.pbx.examples import PORTSIP_PAYLOADS
from portal.pbx.portsip import CALLERS, IDS, TIMES
from tests.ready import CALL_LOST, PEOPLE, key, peer, ready
from tests.security.test_fuzz_mail import HEADERS, TEXT
from tests.security.test_headers import Content, assert_guarded
from tests.smtp_peer import SmtpPeer, unstuffed
from tests.sql import sql

__all__ = ["key", "peer", "ready"]

ADDRESS = "/api/v1/events"
PORTSIP = "/api/v1/events/portsip"
PROMISES = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CALLER = PORTSIP_PAYLOADS["queue_caller_status"][CALLERS][0]
DESCRIBED = {200, 400, 401, 403, 409, 413, 415, 422, 429}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, 1e308, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def unhurried(app: Flask) -> Iterator[None]:
    """No limit of the rate, which would answer for everything else."""
    before = app.extensions["settings"]
    app.extensions["settings"] = before.model_copy(update={"event_rate_limit": "10000000 per minute"})
    yield
    app.extensions["settings"] = before


def assert_mails_are_whole(peer: SmtpPeer) -> None:
    """Assert that no mail has a header or a recipient that the portal did not mean."""
    for conversation in peer.conversations:
        for mail in conversation.mails:
            message = message_from_bytes(unstuffed(mail.content), policy=policy.default)
            assert set(message.keys()) <= HEADERS
            assert not any("evil" in address for address in mail.recipients)
    peer.conversations.clear()


@pytest.mark.parametrize("address", [ADDRESS, PORTSIP])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_what_the_description_allows_and_forbids(
    app: Flask, key: str, ready: str, peer: SmtpPeer, mode: GenerationMode, address: str
) -> None:
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    seen = set()

    @given(case=schema[address]["POST"].as_strategy(generation_mode=mode))
    def post(case: "schemathesis.Case[Any]") -> None:
        answer = case.call(headers={"Authorization": f"Bearer {key}"})
        case.validate_response(answer, checks=PROMISES)
        seen.add(answer.status_code)

    post()
    assert seen & {200, 422}
    assert_mails_are_whole(peer)


def send(client: FlaskClient, key: str, body: bytes, address: str = ADDRESS, **headers: str) -> int:
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    answer = client.post(address, data=body, headers=given)
    assert answer.status_code in DESCRIBED, (answer.status_code, body)
    assert_guarded(answer)
    assert json.loads(answer.data)
    return answer.status_code


def test_any_values_in_an_event(client: FlaskClient, key: str, ready: str, peer: SmtpPeer) -> None:
    names = st.sampled_from([*CALL_LOST, "caller_name", "queue_name", "call_id", "reason", "position"])
    calls = st.dictionaries(names, TEXT | ANYTHING).map(lambda data: {**CALL_LOST, **data})
    attributes = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "time", "tenant", "source", "x"), ANYTHING))

    @given(data=calls, around=attributes)
    def post(data: dict[str, Any], around: dict[str, Any]) -> None:
        send(client, key, json.dumps({"type": "queue.call_lost", **around, "data": data}).encode())

    post()
    assert_mails_are_whole(peer)


def test_any_values_in_a_payload_of_portsip(client: FlaskClient, key: str, ready: str, peer: SmtpPeer) -> None:
    values = st.dictionaries(st.sampled_from([*IDS, *TIMES, *CALLER, CALLERS]), TEXT | ANYTHING)
    callers = st.fixed_dictionaries({CALLERS: st.lists(values.map(lambda caller: {**CALLER, **caller}), max_size=3)})

    @given(known=st.sampled_from(list(PORTSIP_PAYLOADS.values())), around=values, callers=callers | st.just({}))
    def post(known: dict[str, Any], around: dict[str, Any], callers: dict[str, Any]) -> None:
        send(client, key, json.dumps({**known, **around, **callers}).encode(), PORTSIP)

    post()
    assert_mails_are_whole(peer)


def test_any_bytes_and_headers(app: Flask, client: FlaskClient, key: str, ready: str) -> None:
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


def test_values_are_text_in_the_pages_too(
    app: Flask, admin: FlaskClient, system: FlaskClient, client: FlaskClient, key: str, ready: str
) -> None:
    """What came from outside stands in the log: escaped, in no tag of its own."""

    @given(name=TEXT, queue=TEXT)
    def post(name: str, queue: str) -> None:
        values = {"caller_name": f"a{name}"[:200], "queue_name": f"b{queue}"[:200], "queue_number": "1<b>1"}
        send(client, key, json.dumps({"type": "queue.call_lost", "data": {**CALL_LOST, **values}}).encode())

    post()
    for browser in (admin, system):
        page = browser.get(f"/tenants/{ready}/deliveries").text
        assert not Content(page).faults
        assert "<script>alert" not in page
        assert "onerror=alert(1)>" not in page.replace("&gt;", "")
        assert "<b>1" not in page
    assert PEOPLE
