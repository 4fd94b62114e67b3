"""The schemas say what the parser does."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from portal.notifications.events import Event, parse
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.schemas import event_schemas

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Events", "version": "1"},
    "paths": {},
    "components": {"schemas": event_schemas()},
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=str)


def _fits(event: dict[str, Any]) -> bool:
    validator = OAS31Validator({"$ref": "#/components/schemas/Event", **DOCUMENT})
    described: bool = validator.is_valid(event)
    parsed = isinstance(parse(json.dumps(event).encode(), NOW), Event)
    assert described == parsed, event
    return described


def test_they_are_valid_in_an_openapi_document() -> None:
    validate(DOCUMENT)


@every_kind
def test_a_sample_fits(kind: EventKind) -> None:
    whole = {"id": "1", "time": 1795424400, "specversion": "1.0", "tenant": "acme.example", "unknown": {"a": [1]}}
    assert _fits({"type": kind.type, "data": dict(kind.sample)})
    assert _fits({"type": kind.type, "data": {**kind.sample, "unknown": None}, **whole})


@every_kind
def test_what_is_missing_or_wrong_does_not_fit(kind: EventKind) -> None:
    event: dict[str, Any] = {"type": kind.type, "data": dict(kind.sample)}
    assert not _fits({"data": event["data"]})
    assert not _fits({"type": kind.type})
    assert not _fits(event | {"type": "queue.unknown"})
    assert not _fits(event | {"id": "x" * 201})
    assert not _fits(event | {"specversion": "0.3"})
    for name, field in kind.fields.model_fields.items():
        assert not _fits(event | {"data": {**kind.sample, name: {"not": "this"}}})
        assert _fits(event | {"data": {**kind.sample, name: None}}) is not field.is_required()


@every_kind
def test_secrets_are_only_written(kind: EventKind) -> None:
    properties = event_schemas()[kind.fields.__name__]["properties"]
    assert {name for name, schema in properties.items() if schema.get("writeOnly")} == kind.fields.secret_names()


def test_the_type_tells_which_one_it_is() -> None:
    schema = event_schemas()["Event"]
    assert set(schema["discriminator"]["mapping"]) == set(KINDS)
    assert {choice["$ref"] for choice in schema["oneOf"]} == set(schema["discriminator"]["mapping"].values())
