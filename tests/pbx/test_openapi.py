"""The OpenAPI description is valid, and describes what the code does."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from portal.deliveries.report import EventResult
from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from tests.required_fields import described_as_required, needed
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import Post


@pytest.fixture
def openapi(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/api/v1/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.get_json()
    return document


def is_valid(openapi: dict[str, Any], schema: str, value: Any) -> bool:
    reference = {"$ref": f"#/components/schemas/{schema}", "components": openapi["components"]}
    return bool(Draft202012Validator(reference).is_valid(value))


def test_it_is_valid_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(openapi).validate()


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_a_sample_is_valid_and_accepted(
    openapi: dict[str, Any], post: Post, working_tenant: str, event_type: EventType
) -> None:
    assert is_valid(openapi, "Event", {"type": event_type.type, "data": dict(event_type.sample)})
    data = event_type.sample_data(datetime.now(UTC))
    assert post(event_type.type, data.public_fields() | data.secret_fields()).json["status"] == "sent"


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_its_example_is_accepted_on_any_day(
    openapi: dict[str, Any], post: Post, working_tenant: str, event_type: EventType
) -> None:
    schemas = openapi["components"]["schemas"].values()
    (example,) = (schema["example"] for schema in schemas if schema.get("example", {}).get("type") == event_type.type)
    assert post(event_type.type, example["data"]).json["status"] == "sent"
    date = re.compile(r"\d{4}-\d\d-\d\d")
    assert not date.search(json.dumps(example))


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_an_event_without_a_required_field_is_not_valid_and_accepted_only_with_a_warning(
    openapi: dict[str, Any], post: Post, acme: str, event_type: EventType
) -> None:
    for name in described_as_required(event_type):
        data = {key: value for key, value in event_type.sample.items() if key not in (name, "requested_at")}
        assert not is_valid(openapi, "Event", {"type": event_type.type, "data": data})
        response = post(event_type.type, data)
        assert response.status_code == (422 if name in needed(event_type) else 200)
        faults = response.json.get("errors") or response.json["warnings"]
        assert [fault["field"] for fault in faults] == [f"data.{name}"]


@pytest.mark.parametrize("script", [{}, {"rcpt": ["250 ok", "550 5.1.1 no"]}, {"dot": "451 later"}, {"mail": "550 no"}])
def test_responses_are_as_described(
    openapi: dict[str, Any], post: Post, working_tenant: str, peer: SmtpPeer, script: dict[str, Any]
) -> None:
    peer.script = script
    response = post(id="one")
    assert is_valid(openapi, EventResult.__name__, response.json)
    assert is_valid(openapi, EventResult.__name__, post(id="one").json)
    assert not is_valid(openapi, EventResult.__name__, response.json | {"status": "queued"})


def test_generators_of_clients_are_not_misled(openapi: dict[str, Any]) -> None:
    titles: list[str] = []
    defaults: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            titles.extend([value["title"]] if isinstance(value.get("title"), str) else [])
            defaults.extend([value] if "default" in value and value["default"] is None else [])
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)

    schemas = openapi["components"]["schemas"]
    for name in schemas:
        visit({key: value for key, value in schemas[name].items() if key not in {"example", "examples"}})
    assert (titles, defaults) == ([], [])
    schemes = list(openapi["components"]["securitySchemes"])
    assert schemes.index("basic") < schemes.index("bearer"), "a client sends the last one"
    used = [name for requirement in openapi["security"] for name in requirement if name != "signature"]
    assert used == sorted(used)


def test_text_has_at_least_one_character(openapi: dict[str, Any]) -> None:
    for event_type in EVENT_TYPES.values():
        for name, field in openapi["components"]["schemas"][event_type.fields.__name__]["properties"].items():
            texts = [field, *field.get("anyOf", [])]
            assert all("minLength" in text for text in texts if "maxLength" in text), name


def test_what_linters_of_descriptions_ask_for(openapi: dict[str, Any]) -> None:
    """The rules of Spectral for OpenAPI: contact, tags and a description of each operation, used schemas only."""
    assert openapi["info"]["contact"]["url"]
    names = {tag["name"] for tag in openapi["tags"] if tag["description"]}
    operations = [operation for path in openapi["paths"].values() for operation in path.values()]
    assert all(operation["description"] and set(operation["tags"]) <= names for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    text = json.dumps(openapi)
    assert all(f'#/components/schemas/{name}"' in text for name in openapi["components"]["schemas"])


def test_every_problem_is_described(openapi: dict[str, Any], app: Flask, post: Post, acme: str) -> None:
    responses = openapi["paths"]["/api/v1/events"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "409", "413", "415", "422", "429", "503"}
    assert is_valid(openapi, "Problem", post("queue.exploded").json)
