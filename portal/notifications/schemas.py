"""The events as JSON Schema, made of the same models that check them, for the OpenAPI description."""

from datetime import datetime
from typing import Any

from pydantic.json_schema import models_json_schema

from portal.notifications.events import Envelope
from portal.notifications.kinds import HAPPENED, KINDS, DataModel, EventKind

REFERENCE = "#/components/schemas/{model}"


def event_schemas() -> dict[str, Any]:
    """Return the OpenAPI 3.1 component schemas of the events: `Event`, what a PBX may post, and one for each kind."""
    models: list[DataModel | type[Envelope]] = [Envelope, *(kind.fields for kind in KINDS.values())]
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    schemas: dict[str, Any] = generated["$defs"]
    envelope = schemas.pop(Envelope.__name__)
    for kind in KINDS.values():
        _mark_secrets(schemas[kind.fields.__name__], kind)
        _add_examples(schemas[kind.fields.__name__], kind)
        schemas[_name(kind)] = _event(kind, envelope)
    return schemas | {"Event": _choice()}


def _name(kind: EventKind) -> str:
    return f"{kind.fields.__name__}Event"


def _event(kind: EventKind, envelope: dict[str, Any]) -> dict[str, Any]:
    own = {
        "type": {"type": "string", "const": kind.type, "description": envelope["properties"]["type"]["description"]},
        "data": {"$ref": REFERENCE.format(model=kind.fields.__name__)},
    }
    return envelope | {
        "title": kind.label,
        "description": kind.help,
        "properties": envelope["properties"] | own,
        "example": {"type": kind.type, "data": _example(kind)},
    }


def _example(kind: EventKind) -> dict[str, Any]:
    """Return the sample without its times: what is copied from here is to be accepted on any day."""
    times = {name for name, value in kind.sample_data(HAPPENED) if isinstance(value, datetime)}
    return {name: value for name, value in kind.sample.items() if name not in times}


def _mark_secrets(schema: dict[str, Any], kind: EventKind) -> None:
    for name in kind.fields.secret_names():
        schema["properties"][name] |= {"writeOnly": True, "format": "password"}


def _add_examples(schema: dict[str, Any], kind: EventKind) -> None:
    for name, example in kind.sample.items():
        schema["properties"][name] |= {"examples": [example]}


def _choice() -> dict[str, Any]:
    references = {kind.type: REFERENCE.format(model=_name(kind)) for kind in KINDS.values()}
    return {
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "type", "mapping": references},
    }
