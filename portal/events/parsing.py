"""Parses the body of a PBX's request into a validated event.

The body is a CloudEvents 1.0 event in structured JSON mode. Unknown attributes and fields are ignored. An event is
rejected only if it is meaningless without the faulty part: `portal.events.fields` repairs values, and a field that
cannot be repaired is left out or gets its default, unless it has none. Each repair is a warning.
"""

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from portal.database import clock
from portal.events.event_type import EventData, EventType
from portal.events.fields import (
    MAX_ID_LENGTH,
    PORTAL_ERROR,
    Incoming,
    Text,
    Timestamp,
    check_domain,
    check_id,
    fold_choice,
    invalid_value,
    is_blank,
)
from portal.events.types import EVENT_TYPES

SAMPLE_EXPIRY = timedelta(hours=1)  # a sample that arrives the next day helps nobody

Model = TypeVar("Model", bound=BaseModel)

_JSON_TYPE = re.compile(r"^(application|text)/([\w.+-]+\+)?json *(;.*)?$", re.ASCII | re.IGNORECASE)
_CHARSET = re.compile(
    r"(iso-?8859-\d+|latin-?1|us-ascii|windows-\d+|cp\d+|utf-?(8|16|32)([bl]e)?|koi8-[ru]|gb\w+|big5|shift_jis|euc-\w+)",
    re.ASCII | re.IGNORECASE,
)
# A string without its end matches too: otherwise each of its escaped quotes would be tried as the start of one.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{\]}]')
MAX_NESTING = 100  # objects and lists within each other; how many Python itself reads depends on its version
_URL_SAFE = str.maketrans("-_", "+/")
MAX_WARNINGS = 20  # of an event; a PBX that sends everything wrong needs no longer list
MAX_DIGITS = 300  # of a number; a longer one is infinite

JSON_IN_STRING = "This was read as JSON in a string. Send the JSON itself."
_ERROR_MESSAGES = {
    "missing": "This field is required and must not be empty.",
    "string_type": "Send this as text in quotes.",
    "string_pattern_mismatch": "Only JSON data is supported: leave this out or send application/json.",
    "literal_error": "Send one of these: {expected}.",
    "dict_type": "Send an object: {{…}}.",
}


class ProblemKind(StrEnum):
    """The ways in which a request's body can be wrong."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field: the field's path, such as `data.caller_number`, and a message."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class FieldWarning:
    """A fault in one field that did not keep the event from being recorded."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Its path, for example `data.caller_name`."""
    message: str
    """What is wrong with it, and what was done."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a body is not an event: `errors` if fields are invalid, `event_type` if the body names a known one."""

    kind: ProblemKind
    detail: str
    errors: tuple[FieldError, ...] = ()
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A validated event.

    `id` is the PBX's own id, by which repeats are recognised. `canonical` is a normalised form of what the PBX sent:
    the same content always gives the same text. It leaves out unknown fields and a time set by the portal, and contains
    secrets. A `sample` is not a real event. `warnings` are about fields that were repaired or left out.
    """

    id: str | None
    event_type: EventType
    tenant: str | None
    time: datetime
    data: EventData
    canonical: str = field(repr=False)
    sample: bool = False
    warnings: tuple[FieldWarning, ...] = ()

    @property
    def expiry(self) -> timedelta:
        """How long its emails may be delayed."""
        return SAMPLE_EXPIRY if self.sample else self.event_type.expiry


def _find_type(attributes: Mapping[str, Any], warnings: list[FieldWarning]) -> EventType | None:
    name = attributes.get("type")
    if not isinstance(name, str):
        return None
    if event_type := EVENT_TYPES.get(name):
        return event_type
    if event_type := EVENT_TYPES.get(fold_choice(name)):
        warnings.append(FieldWarning("type", f"This was read as “{event_type.type}”."))
    return event_type


def _check_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise invalid_value("Send one of these: {types}.", types=", ".join(EVENT_TYPES))
    return name


class Envelope(BaseModel):
    """The CloudEvents attributes that the portal uses."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    specversion: Literal["1.0"] | None = None
    """The version of CloudEvents. Optional."""
    id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH), BeforeValidator(check_id)] | None = (
        None
    )
    """Your own id of the event. An event posted again with the same id sends nothing."""
    type: Annotated[str, StringConstraints(strict=True), AfterValidator(_check_type)]
    """What happened."""
    time: Timestamp | None = None
    """When it happened. Default: now."""
    tenant: Annotated[str, Text(253, lambda text, _info: check_domain(text))] | None = None
    """The tenant's SIP domain. Required with a system key; a tenant's key implies it."""
    datacontenttype: Annotated[str, StringConstraints(strict=True, pattern=_JSON_TYPE)] | None = None
    """The media type of `data`. Optional."""
    data: dict[str, Any]
    """The details of the event."""

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, attributes: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in attributes.items() if value is not None and not is_blank(value)}


NEVER_LEFT_OUT = {"tenant"}  # optional, but an event must not be recorded for another tenant than it names


def is_json_type(media_type: str) -> bool:
    """Return whether this is a media type of JSON."""
    return bool(_JSON_TYPE.fullmatch(media_type)) and "-batch" not in media_type


def parse_event(
    body: bytes | str, now: datetime | None = None, *, attributes: Mapping[str, Any] | None = None
) -> Event | Problem:
    """Return the event in a request's body, or what is wrong with it, with the errors of all fields.

    With `attributes` the body is only the event's data: CloudEvents' binary mode.
    Times more than 30 days before or a day after `now` (default: the clock) are left out: the PBX's clock is wrong.
    """
    content = parse_json(body)
    if isinstance(content, Problem):
        return content
    return check_event({**attributes, "data": content} if attributes else content, now)


def check_event(attributes: Mapping[str, Any], now: datetime | None = None) -> Event | Problem:
    """Return the event with these attributes, or what is wrong with them, like `parse_event`."""
    now, warnings = now or clock.now(), _repeated_names(attributes, Envelope)
    event_type = _find_type(attributes, warnings)
    known_type = {"type": event_type.type} if event_type else {}
    sent_data = _object_in_data(attributes, warnings)
    envelope = _validate(Envelope, {**attributes, **known_type, "data": sent_data}, now, warnings)
    data = None
    if event_type and isinstance(sent_data, dict):
        warnings += _repeated_names(sent_data, event_type.fields, "data.")
        data = _validate(event_type.fields, sent_data, now, warnings, "data.")
    if event_type and isinstance(envelope, Envelope) and isinstance(data, EventData):
        canonical, time = _canonical_text(envelope, data), envelope.time or now
        return Event(envelope.id, event_type, envelope.tenant, time, data, canonical, warnings=_first_of(warnings))
    errors = tuple(error for result in (envelope, data) if isinstance(result, tuple) for error in result)
    if sent_data is None and attributes.get("data_base64") is not None:
        wrong = FieldError("data_base64", "Send a JSON object in Base64.")
        errors = tuple(wrong if error.field == "data" else error for error in errors)
    detail = "The event has fields that are missing or wrong."
    return Problem(ProblemKind.INVALID, detail, errors, event_type.type if event_type else None)


def _first_of(warnings: Sequence[FieldWarning]) -> tuple[FieldWarning, ...]:
    shown, left = tuple(warnings[:MAX_WARNINGS]), len(warnings) - MAX_WARNINGS
    return (*shown, FieldWarning("data", f"Further warnings, not listed: {left}.")) if left > 0 else shown


def _object_in_data(attributes: Mapping[str, Any], warnings: list[FieldWarning]) -> Any:
    """Return the `data` that was sent as an object, as JSON in a string or in `data_base64`."""
    data, encoded = attributes.get("data"), attributes.get("data_base64")
    if not data and isinstance(encoded, str):
        with suppress(ValueError):  # it is not Base64
            data = parse_json(_decode_base64(encoded))
    elif isinstance(data, str):
        data = parse_json(data)
        warnings.append(FieldWarning("data", JSON_IN_STRING))
    return None if isinstance(data, Problem) else data


def _decode_base64(text: str) -> bytes:
    """Return the bytes in Base64 of either alphabet, with or without line breaks and padding."""
    digits = re.sub(r"\s", "", text).translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)


def _repeated_names(parsed: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> list[FieldWarning]:
    message, repeated = "This was sent more than once. The last one was used.", getattr(parsed, "repeated", ())
    if not repeated:
        return []
    return [FieldWarning(prefix + name, message) for name in model.model_fields if name in repeated]


def decode_text(body: bytes, charset: str | None = None, warnings: list[FieldWarning] | None = None) -> str:
    """Return a body as text: read in the character set that its first bytes show, or in the declared one.

    Bytes that are not UTF-8 become lone surrogates, which the fields' types replace. A byte order mark is ignored
    (RFC 8259, section 8.1). A declared set in which the body is no JSON object, while it is one in ASCII, is not used.
    """
    found = json.detect_encoding(body)
    if found == "utf-8" and charset and _CHARSET.fullmatch(charset) and charset.lower() not in {"utf-8", "utf8"}:
        with suppress(LookupError):
            text = body.decode(charset, "replace")
            if text.lstrip().startswith("{") or not body.lstrip().startswith(b"{"):
                return text
            if warnings is not None:
                message = "The body is not in the character set that is declared here. It was read as UTF-8."
                warnings.append(FieldWarning("Content-Type", message))
    return body.decode(found, "surrogateescape" if found.startswith("utf-8") else "replace").lstrip("\ufeff")


def parse_json(body: bytes | str) -> dict[str, Any] | Problem:
    """Return the JSON object in a request's body, or why there is none. Control characters in text are accepted."""
    value = parse_value(body)
    if not isinstance(value, dict | Problem):
        return Problem(ProblemKind.MALFORMED, "The body must be a JSON object.")
    return value


def parse_value(body: bytes | str) -> Any:
    """Return any JSON value like `parse_json`, or the problem."""
    text = body if isinstance(body, str) else decode_text(body)
    try:
        _reject_deep_nesting(text)
        return _DECODER.decode(text)
    except RecursionError:
        return Problem(ProblemKind.MALFORMED, "The body is nested too deeply.")
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        return Problem(ProblemKind.MALFORMED, f"The body is not valid JSON: syntax error at {position}.")


class ParsedObject(dict[str, Any]):
    """A JSON object. Of a name that it has more than once, the last value is used."""

    repeated: Collection[str] = ()

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> "ParsedObject":
        """Return the object with these names and values."""
        parsed = cls(pairs)
        if len(parsed) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            parsed.repeated = {name for name, count in counts.items() if count > 1}
        return parsed


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=ParsedObject.of, parse_int=_parse_integer)


def _reject_deep_nesting(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_NESTING:
            raise RecursionError


def _validate(
    model: type[Model], values: Mapping[str, Any], now: datetime, warnings: list[FieldWarning], prefix: str = ""
) -> Model | tuple[FieldError, ...]:
    """Return the validated values, without those that are wrong but not needed; or the errors of those needed."""
    left_out: dict[str, str] = {}
    while True:
        incoming = Incoming(now)
        try:
            validated = model.model_validate(values, context=incoming)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            wrong = {str(detail["loc"][0]): _error_message(detail) for detail in details}
            needed = [
                name
                for name in wrong
                if name not in values or name in NEVER_LEFT_OUT or model.model_fields[name].is_required()
            ]
            if needed:
                return tuple(FieldError(prefix + name, wrong[name]) for name in needed)
            left_out |= wrong
            values = {name: value for name, value in values.items() if name not in wrong}
        else:
            for name in sorted(_expected_names(model) - validated.model_fields_set - left_out.keys()):
                left_out[name] = _ERROR_MESSAGES["missing"]
            repaired = [FieldWarning(prefix + name, text) for name, text in incoming.warnings.items()]
            dropped = [FieldWarning(prefix + name, _left_out(model, name, text)) for name, text in left_out.items()]
            warnings += repaired + dropped
            return validated


def _expected_names(model: type[BaseModel]) -> frozenset[str]:
    return model.expected_names() if issubclass(model, EventData) else frozenset()


def _left_out(model: type[BaseModel], name: str, text: str) -> str:
    default = model.model_fields[name].default
    return f"This was left out. {text}" if default is None else f"This was recorded as “{default}”. {text}"


def _error_message(error: ErrorDetails) -> str:
    if error["type"] == PORTAL_ERROR:
        return error["msg"]
    message = _ERROR_MESSAGES.get(error["type"], "This value has the wrong format.")
    choices = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    return message.format(**{**error.get("ctx", {}), "expected": choices})


def _canonical_text(envelope: Envelope, data: EventData) -> str:
    content = {
        "type": envelope.type,
        "time": envelope.time and envelope.time.isoformat(),
        "data": data.public_fields() | data.secret_fields(),
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
