"""The API reference shows everything in the OpenAPI description, and its examples are true."""

import re
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from portal.deliveries.report import EventResult
from portal.pbx.adapters.registry import payload_formats
from portal.pbx.openapi import EVENT_RESULTS, PAYLOAD_RESULTS, example_problem, openapi_document
from portal.pbx.rejection_reasons import RejectionReason
from portal.pbx.webhook import PayloadResult
from tests.pbx.test_openapi import is_valid, openapi
from tests.tenant_fixtures import CALL_LOST, Post, read

__all__ = ["openapi"]

PAYLOADS = [(adapter.name, payload) for adapter, format_ in payload_formats() for payload in format_.examples.values()]


@pytest.fixture
def page(client: FlaskClient) -> str:
    """The page as someone sees it who is not signed in."""
    response = client.get("/api/reference")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    return unescape(response.text)


def test_each_operation_event_field_and_problem_is_there(page: str) -> None:
    document = openapi_document("http://portal.test")
    for path, methods in document["paths"].items():
        assert f"http://portal.test{path}" in page
        for operation in methods.values():
            assert operation["summary"] in page
    schemas = document["components"]["schemas"]
    text = re.sub(r"</?code>", "", page)
    for name in ("UserCreated", "SlaBreached", "CallbackCompleted", "CallbackFailed", "CallLost", EventResult.__name__):
        for field, schema in schemas[name]["properties"].items():
            assert f"<code>{field}</code>" in page
            assert schema.get("description", "").replace("`", "") in text, (name, field)
    for status in document["paths"]["/api/v1/events"]["post"]["responses"]:
        assert status == "200" or f'id="problem-{status}"' in page
    for reason in RejectionReason:
        assert f"{reason.title}: {reason.advice}" in page


def test_it_is_english_for_every_reader(client: FlaskClient, page: str) -> None:
    german = unescape(client.get("/api/reference", headers={"Accept-Language": "de"}).text)
    assert '<html lang="en">' in german
    token = re.compile(r'"X-CSRFToken": "[^"]*"')
    assert token.sub("", german) == token.sub("", page)


def test_each_link_leads_to_an_id_that_is_unique(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_every_field_of_an_event_has_a_description() -> None:
    schemas = openapi_document("")["components"]["schemas"]
    events = [schema for name, schema in schemas.items() if name.endswith("Event") and "properties" in schema]
    assert events
    for event in events:
        assert all("description" in field or "$ref" in field for field in event["properties"].values())
        data = schemas[event["properties"]["data"]["$ref"].rpartition("/")[2]]
        assert all(field["description"] for field in data["properties"].values())


@pytest.mark.parametrize("name", EVENT_RESULTS)
def test_an_example_of_a_result_fits_its_schema(openapi: dict[str, Any], name: str) -> None:
    assert is_valid(openapi, EventResult.__name__, EVENT_RESULTS[name]["value"])


@pytest.mark.parametrize("name", PAYLOAD_RESULTS)
def test_an_example_of_a_payloads_result_fits_its_schema(openapi: dict[str, Any], name: str) -> None:
    assert is_valid(openapi, PayloadResult.__name__, PAYLOAD_RESULTS[name]["value"])


@pytest.mark.parametrize(("make", "payload"), PAYLOADS)
def test_an_example_of_a_payload_fits_its_schema(openapi: dict[str, Any], make: str, payload: dict[str, Any]) -> None:
    assert is_valid(openapi, f"{make.capitalize()}Payload", payload)


@pytest.mark.parametrize("reason", RejectionReason)
def test_an_example_of_a_problem_fits_its_schema(openapi: dict[str, Any], reason: RejectionReason) -> None:
    assert is_valid(openapi, "Problem", example_problem(reason))
    assert example_problem(reason)["detail"]


def test_problems_are_as_in_the_examples(client: FlaskClient, post: Post, working_tenant: str, key: str) -> None:
    post(id="call-4711")
    not_json = client.post(
        "/api/v1/events", data="{x", content_type="application/json", headers={"Authorization": f"Bearer {key}"}
    )
    responses = {
        RejectionReason.CONFLICT: post(id="call-4711", data=CALL_LOST | {"waited_seconds": 1}),
        RejectionReason.INVALID: post(data={"caller_number": "+442079460123"}),
        RejectionReason.MALFORMED: read(not_json),
        RejectionReason.NO_KEY: read(client.post("/api/v1/events", json={})),
        RejectionReason.FOREIGN_TENANT: post(tenant="nobody.example"),
    }
    for reason, response in responses.items():
        assert response.status_code == reason.status
        assert response.json == example_problem(reason)
