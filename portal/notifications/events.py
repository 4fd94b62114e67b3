"""From the body of a PBX's request to a checked event.

The body is a CloudEvents 1.0 event in structured JSON mode. It must be I-JSON (RFC 7493): UTF-8, no lone surrogates,
no name twice in an object. Beyond that, attributes and fields that the portal does not know may hold anything.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from portal.notifications.fields import OURS, EventData, Moment, domain, printable, wrong
from portal.notifications.kinds import KINDS, EventKind

SAMPLE_EXPIRY = timedelta(hours=1)  # nobody wants a sample that comes next day

Model = TypeVar("Model", bound=BaseModel)

_JSON_TYPE = re.compile(r"^(application|text)/([\w.+-]+\+)?json *(;.*)?$", re.ASCII | re.IGNORECASE)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_SENTENCES = {
    "missing": "This field is required and must not be empty.",
    "string_type": "Send this as text in quotes.",
    "string_too_short": "This must not be empty.",
    "string_too_long": "Send at most {max_length} characters.",
    "string_pattern_mismatch": "Only JSON data can be read: leave this out or send application/json.",
    "literal_error": "Send one of these: {expected}.",
    "dict_type": "Send an object: {{…}}.",
}


class ProblemKind(StrEnum):
    """What is wrong with a request's body."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: its path, such as `data.caller_number`, and a sentence."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a body is no event. `errors` are there where it is invalid, `event_type` where it names a known one."""

    kind: ProblemKind
    detail: str
    errors: tuple[FieldError, ...] = ()
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A checked event.

    `id` is the PBX's key for repeats. `canonical` is the same text for the same content, however it was written: what
    the PBX sent, without what the portal does not use and without a time that the portal set. It holds secrets. Of a
    `sample` nothing happened.
    """

    id: str | None
    kind: EventKind
    tenant: str | None
    time: datetime
    data: EventData
    canonical: str = field(repr=False)
    sample: bool = False

    @property
    def expiry(self) -> timedelta:
        """How long its mails may wait."""
        return SAMPLE_EXPIRY if self.sample else self.kind.expiry


def _known(name: str) -> str:
    if name not in KINDS:
        raise wrong("Send one of these: {types}.", types=", ".join(KINDS))
    return name


def _identifier(text: str) -> str:
    if not printable(text).strip():
        raise wrong("This must not be empty.")
    return text


class Envelope(BaseModel):
    """The attributes around an event's data that the portal uses."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    specversion: Literal["1.0"] | None = None
    """The version of CloudEvents, for those who send it."""
    id: (
        Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200), AfterValidator(_identifier)] | None
    ) = None
    """Your own id of the event. Posted again with the same id, it sends nothing."""
    type: Annotated[str, StringConstraints(strict=True), AfterValidator(_known)]
    """What happened."""
    time: Moment | None = None
    """When it happened. Without it: now."""
    tenant: Annotated[str, StringConstraints(strict=True, max_length=253), AfterValidator(domain)] | None = None
    """The tenant's SIP domain. A key of the system needs it; a tenant's key knows."""
    datacontenttype: Annotated[str, StringConstraints(strict=True, pattern=_JSON_TYPE)] | None = None
    """The media type of `data`, for those who send it."""
    data: dict[str, Any]
    """What is known of the event."""

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, attributes: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in attributes.items() if value is not None}


def parse(body: bytes, now: datetime | None = None) -> Event | Problem:
    """Return the event in a request's body, or what is wrong with it, all fields at once.

    Times more than 30 days before or a day after `now` (default: the clock) are invalid: the PBX's clock is wrong, or
    the event is of no use any more.
    """
    read = document(body)
    return read if isinstance(read, Problem) else check(read, now)


def check(attributes: Mapping[str, Any], now: datetime | None = None) -> Event | Problem:
    """Return the event with these attributes, or what is wrong with them, as `parse` does."""
    now = now or datetime.now(UTC)
    envelope = _check(Envelope, attributes, now)
    kind, given = _kind(attributes), attributes.get("data")
    data = _check(kind.fields, given, now, "data.") if kind and isinstance(given, dict) else None
    if kind and isinstance(envelope, Envelope) and isinstance(data, EventData):
        canonical = _canonical(envelope, data)
        return Event(envelope.id, kind, envelope.tenant, envelope.time or now, data, canonical)
    errors = tuple(error for each in (envelope, data) if isinstance(each, tuple) for error in each)
    detail = "The event has fields that are missing or wrong."
    return Problem(ProblemKind.INVALID, detail, errors, kind.type if kind else None)


def document(body: bytes) -> dict[str, Any] | Problem:
    """Return the JSON object in a request's body, or why there is none that can be read for certain."""
    try:
        text = body.decode("utf-8-sig")  # a byte order mark may be ignored: RFC 8259, section 8.1
        read = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            json.dumps(read, ensure_ascii=False).encode()
    except UnicodeError:
        return Problem(ProblemKind.MALFORMED, "The body is not valid UTF-8, or holds half of a surrogate pair.")
    except RecursionError:
        return Problem(ProblemKind.MALFORMED, "The body is nested too deeply.")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return Problem(ProblemKind.MALFORMED, f"The body is not JSON: it cannot be read from {where} on.")
    except _DoubtfulError as error:
        return Problem(ProblemKind.MALFORMED, f"The body is not JSON that can be read for certain: {error}.")
    except ValueError:  # Python's own limit, 4,300 digits
        return Problem(ProblemKind.MALFORMED, "The body holds a number that is too long to be read.")
    if not isinstance(read, dict):
        return Problem(ProblemKind.MALFORMED, "The body must be a JSON object.")
    return read


class _DoubtfulError(ValueError):
    """The reader could take the body for something else than the writer meant."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DoubtfulError("an object has the same name twice")
    return found


def _refuse_constant(name: str) -> None:
    raise _DoubtfulError(f"{name} is not a number in JSON")


def _kind(attributes: Mapping[str, Any]) -> EventKind | None:
    name = attributes.get("type")
    return KINDS.get(name) if isinstance(name, str) else None


def _check(model: type[Model], values: Any, now: datetime, prefix: str = "") -> Model | tuple[FieldError, ...]:
    try:
        return model.model_validate(values, context={"now": now})
    except ValidationError as error:
        return tuple(
            FieldError(prefix + ".".join(map(str, each["loc"])), _sentence(each))
            for each in error.errors(include_url=False, include_input=False)
        )


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == OURS:
        return error["msg"]
    sentence = _SENTENCES.get(error["type"], "This value has the wrong form.")
    choices = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    return sentence.format(**{**error.get("ctx", {}), "expected": choices})


def _canonical(envelope: Envelope, data: EventData) -> str:
    content = {
        "type": envelope.type,
        "time": envelope.time and envelope.time.isoformat(),
        "data": data.public() | data.secrets(),
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
