"""What the API reference shows, taken from the OpenAPI description. Nothing here describes the webhook itself."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from portal.pbx.openapi import EVENTS_PATH, openapi_document

Json = dict[str, Any]
Schema = Mapping[str, Any]

FORMATS = {"date-time": "time (RFC 3339)", "email": "email address", "hostname": "domain name"}
NUMBER_PATTERN = "^[0-9]"  # how the pattern of a number that is sent as text begins
ATTRIBUTES = "The attributes beside its `data`. Unknown attributes are ignored, as are unknown fields of the data."


@cache
def reference_document(server: str) -> Json:
    """Return the values of the page's template, for the webhook at the URL `server`."""
    return _Reference(openapi_document(server)).document()


class _Reference:
    """The OpenAPI description in the order of the page. The references to its schemas are resolved."""

    def __init__(self, openapi: Schema) -> None:
        self._openapi, self._schemas = openapi, openapi["components"]["schemas"]
        self._shown: set[str] = set()  # the names of the objects that an operation before has in its response

    def document(self) -> Json:
        paths = self._openapi["paths"]
        responses = paths[EVENTS_PATH]["post"]["responses"]
        return {
            "description": self._openapi["info"]["description"],
            "server": self._openapi["servers"][0]["url"],
            "security_schemes": [*map(_security_scheme, self._openapi["components"]["securitySchemes"].values())],
            "operations": [
                self._operation(path, method, operation)
                for path, methods in paths.items()
                for method, operation in methods.items()
            ],
            "event_attributes": self._event_attributes(),
            "problem": self._object("Problem"),
            "problem_responses": [_response(status, responses[status]) for status in responses if status != "200"],
        }

    def _event_attributes(self) -> Json:
        """Return the attributes beside an event's data, which are the same for each type."""
        events = list(self._choices("Event"))
        types = "one of " + ", ".join(event["properties"]["type"]["const"] for event in events)
        fields = {field["name"]: field for field in self._fields(events[0])}
        fields["type"] |= {"type": types}
        del fields["data"]
        return _json_object("attributes", "Attributes of an event", ATTRIBUTES, fields.values())

    def _operation(self, path: str, method: str, operation: Schema) -> Json:
        """Return an operation. Objects that are shown already are left out."""
        body = next(iter(operation["requestBody"]["content"].values()))["schema"]
        result = operation["responses"]["200"]["content"]["application/json"]["schema"]
        names = [name for name in self._with_parts(_name(result)) if name not in self._shown]
        self._shown.update(names)
        make = path.removeprefix(EVENTS_PATH).strip("/")
        return {
            "id": operation["operationId"],
            "title": operation["summary"],
            "description": operation["description"],
            "method": method.upper(),
            "path": path,
            "parameters": [
                self._field(parameter["name"], parameter["schema"] | parameter) for parameter in operation["parameters"]
            ],
            "bodies": [self._body(schema, f"{make}-" if make else "") for schema in self._choices(_name(body))],
            "response": _response("200", operation["responses"]["200"]),
            "response_objects": [*map(self._object, names)],
        }

    def _body(self, schema: Schema, prefix: str) -> Json:
        """Return what may be posted: the fields of an event's data, or of a payload."""
        properties = schema["properties"]
        names = [name for name in properties if "const" in properties[name]]
        type_ = properties[names[0]]["const"] if names else ""
        content = self._resolve(properties["data"]) if "data" in properties else schema
        fields = [field for field in self._fields(content) if field["name"] not in names]
        example = _json(schema["example"]) if "example" in schema else ""
        anchor = f"{prefix}{type_ or 'other'}"
        return _json_object(anchor, schema["x-title"], schema["description"], fields, type_, example)

    def _object(self, name: str) -> Json:
        schema = self._schemas[name]
        return _json_object(name, schema.get("x-title", name), schema["description"], self._fields(schema))

    def _fields(self, schema: Schema) -> Iterator[Json]:
        required = schema.get("required", ())
        for name, property_ in schema["properties"].items():
            yield self._field(name, property_ | {"required": name in required})
            items = property_.get("items", {})
            if "properties" in items:  # an object without a name, so it is shown nowhere else
                yield from (field | {"name": f"{name}[].{field['name']}"} for field in self._fields(items))

    def _field(self, name: str, schema: Schema) -> Json:
        return {
            "name": name,
            "type": self._field_type(schema),
            "required": schema.get("required") is True,
            "description": schema.get("description", ""),
            "example": json.dumps(schema["examples"][0], ensure_ascii=False) if schema.get("examples") else "",
        }

    def _resolve(self, schema: Schema) -> Schema:
        """Return the schema, or the one that it refers to."""
        resolved: Schema = self._schemas[_name(schema)] if _name(schema) else schema
        return resolved

    def _choices(self, name: str) -> Iterator[Schema]:
        """Return the alternatives of a schema."""
        schema = self._schemas[name]
        return map(self._resolve, schema.get("oneOf") or schema["anyOf"])

    def _with_parts(self, name: str) -> Iterator[str]:
        """Return the name of a schema, and those of the objects in its fields, once each."""
        yield name
        parts = (field.get("items", field) for field in self._schemas[name]["properties"].values())
        for part in dict.fromkeys(_name(part) for part in parts if self._resolve(part).get("type") == "object"):
            if part:
                yield from self._with_parts(part)

    def _field_type(self, schema: Schema) -> str:
        """Return the type of a field in words, without null: whether a field is required is shown elsewhere."""
        alternatives = schema.get("anyOf") or [{name: value for name, value in schema.items() if name != "description"}]
        return ", or ".join(dict.fromkeys(filter(None, map(self._type_text, alternatives))))

    def _type_text(self, schema: Schema) -> str:
        name, schema = _name(schema), self._resolve(schema)
        if "const" in schema:
            return f"“{schema['const']}”"
        if "enum" in schema:
            return "one of " + ", ".join(schema["enum"])
        match schema.get("type", ""):
            case "array":
                return f"list of {self._type_text(schema['items'])}s"
            case "object":
                return name or "object"
            case "string":
                return _string_text(schema)
            case "integer" | "number":
                return _number_text(schema)
            case type_:
                return {"null": "", "boolean": "true or false"}.get(type_, str(type_))


def _name(schema: Schema) -> str:
    """Return the name of the schema that this one refers to; empty if it refers to none."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _json_object(
    anchor: str, title: str, description: str, fields: Iterable[Json], type_: str = "", example: str = ""
) -> Json:
    """Return a part of the page. `type_` is the name of the event type or of the payload."""
    values = {"id": anchor, "title": title, "type": type_, "description": description, "example": example}
    return {**values, "fields": list(fields)}


def _security_scheme(scheme: Schema) -> tuple[str, str]:
    header = f"Authorization: {scheme['scheme'].capitalize()}" if "scheme" in scheme else scheme["name"]
    return header, scheme["description"]


def _response(status: str, response: Schema) -> Json:
    """Return a response. Several `descriptions` are alternatives."""
    (content,) = response["content"].values()
    return {
        "status": status,
        "descriptions": [line.removeprefix("- ") for line in response["description"].splitlines()],
        "headers": list(response.get("headers", ())),
        "examples": [(example["summary"], _json(example["value"])) for example in content["examples"].values()],
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _string_text(schema: Schema) -> str:
    if schema.get("pattern", "").startswith(NUMBER_PATTERN):
        return "the same as text"
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    return f"text, up to {schema['maxLength']} characters" if "maxLength" in schema else "text"


def _number_text(schema: Schema) -> str:
    text = schema.get("description") or ("number" if schema["type"] == "number" else "whole number")
    return f"{text} from {schema['minimum']:,} to {schema['maximum']:,}" if "maximum" in schema else text
