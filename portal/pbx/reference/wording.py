"""A JSON Schema's type in a few words: "whole number from 0 to 604,800, or the same as text"."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
FORMATS = {"date-time": "time (RFC 3339)", "email": "e-mail address", "hostname": "domain name"}
DIGITS = "^[0-9]"  # what a pattern of numbers as text begins with


class Schemas:
    """The schemas that an OpenAPI description refers to by name."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def __getitem__(self, name: str) -> Schema:
        return self._schemas[name]

    def name(self, schema: Schema) -> str:
        """Return the name of the schema that this one refers to, empty where it stands for itself."""
        return str(schema.get("$ref", "")).rpartition("/")[2]

    def resolve(self, schema: Schema) -> Schema:
        """Return the schema, or what it refers to."""
        name = self.name(schema)
        return self._schemas[name] if name else schema

    def choices(self, name: str) -> Iterator[Schema]:
        """Return what a schema lets one choose from."""
        schema = self._schemas[name]
        return map(self.resolve, schema.get("oneOf") or schema["anyOf"])

    def within(self, name: str) -> Iterator[str]:
        """Give the name, and those of the objects that its fields hold, each once."""
        yield name
        held = (each.get("items", each) for each in self._schemas[name]["properties"].values())
        for inner in dict.fromkeys(self.name(each) for each in held if self.resolve(each).get("type") == "object"):
            if inner:
                yield from self.within(inner)


def type_words(schemas: Schemas, schema: Schema) -> str:
    """Return the type of a field in words. That it may be left out is said elsewhere, so null is not."""
    parts = schema.get("anyOf") or [{name: value for name, value in schema.items() if name != "description"}]
    words = [word for part in parts if (word := _words(schemas, part))]
    return ", or ".join(dict.fromkeys(words))


def _words(schemas: Schemas, schema: Schema) -> str:
    name, schema = schemas.name(schema), schemas.resolve(schema)
    if "const" in schema:
        return f"“{schema['const']}”"
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    kind = schema.get("type", "")
    match kind:
        case "null":
            return ""
        case "array":
            return f"list of {_words(schemas, schema['items'])}s"
        case "object":
            return name or "object"
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema)
    return "true or false" if kind == "boolean" else str(kind)


def _text(schema: Schema) -> str:
    if schema.get("pattern", "").startswith(DIGITS):
        return "the same as text"
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    return f"text, up to {schema['maxLength']} characters" if "maxLength" in schema else "text"


def _number(schema: Schema) -> str:
    word = schema.get("description") or ("number" if schema["type"] == "number" else "whole number")
    return f"{word} from {schema['minimum']:,} to {schema['maximum']:,}" if "maximum" in schema else word
