"""JSON Schema of the events, generated from the models that validate them, for the OpenAPI document."""

from datetime import datetime
from typing import Any

from pydantic.json_schema import models_json_schema

from portal.events.event_type import SAMPLE_TIME, DataModel, EventType
from portal.events.parsing import Envelope
from portal.events.types import EVENT_TYPES

SCHEMA_REFERENCE = "#/components/schemas/{model}"


def event_schemas() -> dict[str, Any]:
    """Return the OpenAPI 3.1 component schemas: `Event`, which is any event that a PBX may post, and one per type."""
    models: list[DataModel | type[Envelope]] = [Envelope, *(event_type.fields for event_type in EVENT_TYPES.values())]
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMA_REFERENCE)
    schemas: dict[str, Any] = for_clients(generated["$defs"])
    envelope = schemas.pop(Envelope.__name__)
    for event_type in EVENT_TYPES.values():
        properties = schemas[event_type.fields.__name__]["properties"]
        for name in event_type.fields.secret_names():
            properties[name] |= {"writeOnly": True, "format": "password"}
        for name, example in event_type.sample.items():
            properties[name] |= {"examples": [example]}
        schemas[_schema_name(event_type)] = _event_schema(event_type, envelope)
    return schemas | {"Event": _any_event_schema()}


def for_clients(schema: Any) -> Any:
    """Return a schema without what misleads generators of clients.

    They take titles for names of classes, and a property whose default is null for one that is always there.
    """
    if isinstance(schema, list):
        return [for_clients(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: for_clients(value)
        for name, value in schema.items()
        if not (name == "title" and isinstance(value, str)) and not (name == "default" and value is None)
    }


def _schema_name(event_type: EventType) -> str:
    return f"{event_type.fields.__name__}Event"


def _event_schema(event_type: EventType, envelope: dict[str, Any]) -> dict[str, Any]:
    attributes = envelope["properties"]
    type_ = {"type": "string", "const": event_type.type, "description": attributes["type"]["description"]}
    data = {"$ref": SCHEMA_REFERENCE.format(model=event_type.fields.__name__)}
    return envelope | {
        "x-title": event_type.label,
        "description": event_type.help,
        "properties": attributes | {"type": type_, "data": data},
        "example": {"type": event_type.type, "data": _example_data(event_type)},
    }


def _example_data(event_type: EventType) -> dict[str, Any]:
    """Return the sample without its times, so that a copy of the example is accepted on any day."""
    times = {name for name, value in event_type.sample_data(SAMPLE_TIME) if isinstance(value, datetime)}
    return {name: value for name, value in event_type.sample.items() if name not in times}


def _any_event_schema() -> dict[str, Any]:
    references = {
        event_type.type: SCHEMA_REFERENCE.format(model=_schema_name(event_type)) for event_type in EVENT_TYPES.values()
    }
    return {
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "type", "mapping": references},
    }
