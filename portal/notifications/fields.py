"""The fields of an event's data: what a PBX may send in them, and how that is kept.

A field's error is a sentence for the PBX's administrator and never repeats the value.
"""

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from portal import forms

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST = timedelta(days=30), timedelta(days=1)  # how far an event's times may lie behind and ahead of now
LONGEST_DURATION = 7 * 86_400  # seconds
OURS = "portal"  # the type of the errors whose message is a sentence of ours

_WHOLE = re.compile(r"-?\d{1,9}", re.ASCII)
_UNIX = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Marks that turn the direction of the text around them: a caller's name could reverse what stands behind it.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Secret:
    """Mark of a field that must stay out of logs and pages, and that is erased once the mail is delivered."""


SECRET = Secret()


class EventData(BaseModel):
    """The base of an event's data: unknown fields are dropped; null and blank texts are fields that are not there."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if value is not None and not _blank(value)}

    def __repr_args__(self) -> Any:
        """Keep secrets out of tracebacks and logs."""
        return [(name, value) for name, value in super().__repr_args__() if name not in self.secret_names()]

    @classmethod
    @cache
    def secret_names(cls) -> frozenset[str]:
        """Return the names of the secret fields."""
        return frozenset(name for name, field in cls.model_fields.items() if SECRET in field.metadata)

    @property
    def queue(self) -> str | None:
        """The number of the queue that the event is about, if it is about one."""
        return None

    @property
    def switched_by(self) -> str | None:
        """The event type whose switch decides about the mail, where that is another one."""
        return None

    @property
    def addressee(self) -> str | None:
        """The e-mail address of the person that the event is about, if it carries one."""
        return None

    def public(self) -> dict[str, Any]:
        """Return the fields that may be kept and shown, as JSON values."""
        return self.model_dump(mode="json", exclude_none=True, exclude=set(self.secret_names()))

    def secrets(self) -> dict[str, Any]:
        """Return the secret fields, as JSON values. `model_validate(public | secrets)` makes the same data again."""
        return self.model_dump(mode="json", exclude_none=True, include=set(self.secret_names()))

    def moved(self, by: timedelta) -> Self:
        """Return the same data with all times in it so much later."""
        data: Self = _moved(self, by)
        return data


def _moved(value: Any, by: timedelta) -> Any:
    if isinstance(value, datetime):
        return value + by
    if isinstance(value, tuple):
        return tuple(_moved(each, by) for each in value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _moved(each, by) for name, each in value})
    return value


def wrong(sentence: str, **context: Any) -> PydanticCustomError:
    """Return the error of a field, in a sentence of ours with `{name}` for what `context` holds."""
    return PydanticCustomError(OURS, sentence, context)


def printable(text: str) -> str:
    """Return the text as it is.

    Raises:
        PydanticCustomError: it has a control character.
    """
    if not text.isprintable() and forms.has_control_characters(text):
        raise wrong("Control characters, such as line breaks, are not allowed here.")
    return text


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not _trim(value) and not forms.has_control_characters(value)


def _trim(text: str) -> str:
    return _DIRECTION.sub("", text).strip()


def _line(text: str) -> str:
    return _trim(printable(text))


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return domain(text)


def domain(text: str) -> str:
    """Return a domain name in its ASCII form, lower case.

    Raises:
        PydanticCustomError: it is none.
    """
    try:
        return _ascii_domain(printable(text))
    except ValueError:
        raise wrong("Send a domain name, like acme.example.") from None


_ascii_domain = lru_cache(maxsize=1024)(forms.domain)  # the same few come with each event


def _address(text: str) -> str:
    try:
        return forms.address(printable(text))
    except ValueError:
        raise wrong("Send one e-mail address, like user@acme.example.") from None


def _moment(value: Any, info: ValidationInfo) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else _parse_moment(value)
    except (ValueError, OverflowError):
        raise wrong("Send a time as RFC 3339 with its offset, like 2026-11-23T09:05:00Z, or as Unix seconds.") from None
    # Only what arrives is compared with the clock: what was recorded stays valid.
    now = (info.context or {}).get("now")
    if now and not now - EARLIEST <= moment <= now + LATEST:
        raise wrong("This time is more than 30 days ago or more than a day ahead. Check the PBX's clock.")
    return moment.astimezone(UTC)


def _parse_moment(value: Any) -> datetime:
    if isinstance(value, str) and _RFC3339.fullmatch(value.upper()):
        return datetime.fromisoformat(value.upper())
    if isinstance(value, str) and _UNIX.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return UNIX + timedelta(seconds=value)  # unlike `fromtimestamp` it has one error for all that is out of range


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, as a number or as digits in a string: PBXs send both."""

    low: int
    high: int

    def check(self, value: Any) -> int:
        """Return the number."""
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not self.low <= value <= self.high:
            raise wrong("Send a whole number from {low} to {high}.", low=self.low, high=self.high)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check by `check` alone."""
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe both forms."""
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]}


Line = Annotated[str, StringConstraints(strict=True, max_length=200), AfterValidator(_line)]
Number = Annotated[str, StringConstraints(strict=True, max_length=64), AfterValidator(_line)]
Password = Annotated[str, StringConstraints(strict=True, max_length=200), AfterValidator(printable)]
Host = Annotated[str, StringConstraints(strict=True, max_length=253), AfterValidator(_host)]
Address = Annotated[
    str,
    StringConstraints(strict=True, max_length=254),
    AfterValidator(_address),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": 254}),
]
Seconds = Annotated[int, Whole(0, LONGEST_DURATION)]
Count = Annotated[int, Whole(0, 100_000)]
Port = Annotated[int, Whole(1, 65_535)]
SipStatus = Annotated[int, Whole(100, 699)]  # RFC 3261, section 7.2
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "description": "Unix seconds"},
                {"type": "string", "pattern": "^[0-9]{1,12}([.][0-9]{1,9})?$", "description": "Unix seconds"},
            ]
        },
        mode="validation",
    ),
]
