"""From the OpenAPI description to what the page of the API reference shows. Nothing here says what the portal does."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from portal.pbx.openapi import description
from portal.pbx.reference.wording import Schemas, type_words

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object, or a parameter of an operation."""

    name: str
    type: str
    required: bool
    meaning: str
    example: str


@dataclass(frozen=True, slots=True)
class Example:
    """A JSON document, and when it is seen."""

    title: str
    json: str


@dataclass(frozen=True, slots=True)
class Object:
    """An object with its fields: an event's data, a payload, a part of an answer."""

    anchor: str
    title: str
    type: str
    meaning: str
    fields: Sequence[Field]
    example: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of an operation."""

    status: str
    meaning: str
    headers: Sequence[str]
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a program can ask for."""

    anchor: str
    method: str
    path: str
    title: str
    meaning: str
    parameters: Sequence[Field]
    bodies: Sequence[Object]
    answer: Answer
    parts: Sequence[Object]  # of the answer


@dataclass(frozen=True, slots=True)
class Outline:
    """The whole page."""

    title: str
    meaning: str
    server: str
    schemes: Sequence[tuple[str, str]]
    operations: Sequence[Operation]
    attributes: Object
    problem: Object
    problems: Sequence[Answer]


@cache
def outline(server: str) -> Outline:
    """Return the outline of the webhook at this address."""
    described = description(server)
    schemas = Schemas(described["components"]["schemas"])
    operations: list[Operation] = []
    for path, item in described["paths"].items():
        shown = {part.anchor for operation in operations for part in operation.parts}
        operations += [_operation(schemas, path, method, each, shown) for method, each in item.items()]
    responses = described["paths"]["/api/v1/events"]["post"]["responses"]
    return Outline(
        title=described["info"]["title"],
        meaning=described["info"]["description"],
        server=server,
        schemes=[_scheme(each) for each in described["components"]["securitySchemes"].values()],
        operations=operations,
        attributes=_attributes(schemas),
        problem=_object(schemas, "Problem"),
        problems=[_answer(status, each) for status, each in responses.items() if status != "200"],
    )


def _scheme(scheme: Schema) -> tuple[str, str]:
    header = f"Authorization: {scheme['scheme'].capitalize()}" if "scheme" in scheme else scheme["name"]
    return header, scheme["description"]


def _attributes(schemas: Schemas) -> Object:
    """Return what stands around an event's data: the same for each type."""
    events = list(schemas.choices("Event"))
    types = "one of " + ", ".join(each["properties"]["type"]["const"] for each in events)
    fields = [replace(each, type=types) if each.name == "type" else each for each in _fields(schemas, events[0])]
    around = [each for each in fields if each.name != "data"]
    meaning = "What stands around its `data`. Unknown ones are ignored, as are unknown fields of the data."
    return Object("attributes", "Attributes of an event", "", meaning, around, "")


def _operation(schemas: Schemas, path: str, method: str, operation: Schema, shown: Collection[str]) -> Operation:
    body = next(iter(operation["requestBody"]["content"].values()))["schema"]
    report = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return Operation(
        anchor=operation["operationId"],
        method=method.upper(),
        path=path,
        title=operation["summary"],
        meaning=operation["description"],
        parameters=[_field(schemas, each["name"], each["schema"] | each) for each in operation["parameters"]],
        bodies=[_body(schemas, each) for each in schemas.choices(schemas.name(body))],
        answer=_answer("200", operation["responses"]["200"]),
        parts=[_object(schemas, each) for each in schemas.within(schemas.name(report)) if each not in shown],
    )


def _body(schemas: Schemas, schema: Schema) -> Object:
    """Return what may be posted: of an event the fields of its data."""
    properties = schema["properties"]
    what = next(properties[name] for name in ("type", "event_type") if name in properties).get("const", "")
    data = schemas.resolve(properties["data"]) if "data" in properties else schema
    fields = [each for each in _fields(schemas, data) if each.name != "event_type"]
    example = _json(schema["example"]) if "example" in schema else ""
    return Object(what or "anything-else", schema["title"], what, schema["description"], fields, example)


def _object(schemas: Schemas, name: str) -> Object:
    schema = schemas[name]
    return Object(name, schema.get("title", name), "", schema["description"], list(_fields(schemas, schema)), "")


def _fields(schemas: Schemas, schema: Schema) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, each in schema["properties"].items():
        yield _field(schemas, name, each | {"required": name in required})
        inner = schemas.resolve(each.get("items", {})) if schemas.name(each.get("items", {})) == "" else {}
        for field, part in inner.get("properties", {}).items():
            yield _field(schemas, f"{name}[].{field}", part | {"required": field in inner.get("required", ())})


def _field(schemas: Schemas, name: str, schema: Schema) -> Field:
    example = json.dumps(schema["examples"][0], ensure_ascii=False) if schema.get("examples") else ""
    required = schema.get("required") is True
    return Field(name, type_words(schemas, schema), required, schema.get("description", ""), example)


def _answer(status: str, response: Schema) -> Answer:
    (content,) = response["content"].values()
    several = [Example(each["summary"], _json(each["value"])) for each in content.get("examples", {}).values()]
    one = [Example("", _json(content["example"]))] if "example" in content else []
    return Answer(status, response["description"], list(response.get("headers", ())), several or one)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
