"""The parser accepts what the generated JSON Schema accepts, without a warning; and more, which it repairs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from portal.events.event_type import EventType
from portal.events.json_schema import event_schemas
from portal.events.parsing import Event, parse_event
from portal.events.types import EVENT_TYPES
from tests.required_fields import described_as_required

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Events", "version": "1"},
    "paths": {},
    "components": {"schemas": event_schemas()},
}
every_event_type = pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=str)


def _fits(event: dict[str, Any]) -> bool:
    validator = OAS31Validator({"$ref": "#/components/schemas/Event", **DOCUMENT})
    described: bool = validator.is_valid(event)
    parsed = parse_event(json.dumps(event).encode(), NOW)
    is_clean = isinstance(parsed, Event) and not parsed.warnings
    assert is_clean or not described, event
    return described


def test_schemas_are_valid_in_an_openapi_document() -> None:
    validate(DOCUMENT)


@every_event_type
def test_samples_are_valid(event_type: EventType) -> None:
    whole = {"id": "1", "time": 1795424400, "specversion": "1.0", "tenant": "acme.example", "unknown": {"a": [1]}}
    assert _fits({"type": event_type.type, "data": dict(event_type.sample)})
    assert _fits({"type": event_type.type, "data": {**event_type.sample, "unknown": None}, **whole})


@every_event_type
def test_missing_and_wrong_values_are_invalid(event_type: EventType) -> None:
    event: dict[str, Any] = {"type": event_type.type, "data": dict(event_type.sample)}
    assert not _fits({"data": event["data"]})
    assert not _fits({"type": event_type.type})
    assert not _fits(event | {"type": "queue.unknown"})
    assert not _fits(event | {"id": "x" * 201})
    assert not _fits(event | {"specversion": "0.3"})
    required = described_as_required(event_type)
    for name in event_type.fields.model_fields:
        assert not _fits(event | {"data": {**event_type.sample, name: {"not": "this"}}})
        if name in required:
            assert not _fits(event | {"data": {**event_type.sample, name: ""}})
        without = {key: value for key, value in event_type.sample.items() if key != name}
        assert _fits(event | {"data": without}) is not (name in required)


@every_event_type
def test_secrets_are_write_only(event_type: EventType) -> None:
    properties = event_schemas()[event_type.fields.__name__]["properties"]
    assert {name for name, schema in properties.items() if schema.get("writeOnly")} == event_type.fields.secret_names()


def test_the_type_selects_the_schema() -> None:
    schema = event_schemas()["Event"]
    assert set(schema["discriminator"]["mapping"]) == set(EVENT_TYPES)
    assert {choice["$ref"] for choice in schema["oneOf"]} == set(schema["discriminator"]["mapping"].values())
