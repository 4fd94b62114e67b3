"""The types of an event's fields: what a PBX may send in them, and the form in which they are kept.

Here is the rule of wrong values: whatever can be repaired is repaired, with a warning. What cannot be repaired is an
error (`PydanticCustomError`), and the parser leaves out a field with an error if the event makes sense without it.
Errors and warnings are sentences for the PBX's administrator and never repeat the value.
"""

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID, uuid5

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from portal.web import forms as web_forms
from portal.web.i18n import LANGUAGES
from portal.web.pasted_emails import parse_email

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_EVENT_AGE = timedelta(days=30)
MAX_CLOCK_ERROR = timedelta(days=1)  # how far an event's times may be in the future
MAX_DURATION = 7 * 86_400  # seconds
MAX_ID_LENGTH = 200
MAX_PASSWORD_LENGTH = 200
MAX_LANGUAGE_LENGTH = 35  # of a tag (RFC 5646, section 4.4.1)
ID_NAMESPACE = UUID("0f4c1f62-7a4e-4f0b-8f5b-5f3c0f7e9a10")  # of the ids that replace unusable ones
PORTAL_ERROR = "portal"  # the type of the errors whose message is defined here, not by Pydantic

_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,9})?", re.ASCII)
_UNIX_SECONDS = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Characters that change the direction of text: in a caller's name they could reverse the text after it.
_SEPARATORS = re.compile(r"[\s-]+")
_BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINE_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]+")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, or a byte that is not UTF-8
_NAME_ADDRESS = re.compile(r'(?:"((?:[^"\\]|\\.)*)"\s*|([^"<>]*))<([^<>]*)>.*')
_SCHEME = re.compile(r"(?:sips?|tel):", re.IGNORECASE)
_HOST_IN_URI = re.compile(
    r"(?:\w+:/*)?(?:[^@/]*@)?(?:\[([0-9a-fA-F:.]+)\]|([^:/;?\[\]@]+))(?::\d*)?(?:[/;?].*)?", re.ASCII
)
_LINK = re.compile(r"://|www\.|mailto:|\w\.[a-z]{2,24}/", re.IGNORECASE)
_PIN = re.compile(r"[0-9*#]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Incoming:
    """The context in which an incoming event is validated, and the warnings about its fields.

    Without it, recorded data is validated, which stays valid when a rule changes or time passes.
    """

    now: datetime
    warnings: dict[str, str] = field(default_factory=dict)


def warn(info: ValidationInfo, message: str, field_name: str | None = None) -> None:
    """Add a warning about the field, if the event is an incoming one."""
    if isinstance(info.context, Incoming):
        name = field_name or info.field_name or ""
        info.context.warnings[name] = f"{info.context.warnings.get(name, '')} {message}".strip()


def invalid_value(message: str, **context: Any) -> PydanticCustomError:
    """Return the error of a field; `{name}` in the message is replaced by the value in `context`."""
    return PydanticCustomError(PORTAL_ERROR, message, context)


def is_blank(value: Any) -> bool:
    """Return whether a value is text with nothing to see in it."""
    return isinstance(value, str) and not value[:1].isalnum() and not _strip(value)


def _strip(text: str) -> str:
    return _BIDI_CONTROLS.sub("", text).strip()


def as_text(value: Any) -> str:
    """Return text, or a number as text: scripts send numbers and ids as both."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid_value("Send this as text in quotes.")
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else str(value)


def clean_text(text: str) -> str:
    """Return the text without control characters and surrounding blanks; what is not Unicode is replaced."""
    if text.isprintable():
        return text.strip()
    cleaned = _LINE_BREAKS.sub(" ", _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text))
    if web_forms.has_control_characters(cleaned):
        cleaned = "".join(character for character in cleaned if not web_forms.has_control_characters(character))
    return _strip(cleaned)


def _warn_if_unclean(text: str, info: ValidationInfo) -> None:
    decoded = _SURROGATE.sub("", text)
    if decoded != text:
        warn(info, "Characters that are not valid UTF-8 were replaced. Send UTF-8.")
    if web_forms.has_control_characters(decoded.strip("\r\n\t")):
        warn(info, "Control characters, such as line breaks, were removed.")


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text, or a number that is taken as text. It is cleaned, and cut if it is too long.

    `parse` returns the part of it that the field is about, in its canonical form.
    """

    max_length: int
    parse: Callable[[str, ValidationInfo], str] | None = None
    format: str | None = None  # of JSON Schema

    def check(self, value: Any, info: ValidationInfo) -> str:
        """Return the text."""
        sent = as_text(value)
        text = clean_text(sent)
        if not sent.isprintable():
            _warn_if_unclean(sent, info)
        if self.parse and text:
            text = self.parse(text, info)
        if len(text) > self.max_length:
            text = text[: self.max_length].strip()
            warn(info, f"This was cut to {self.max_length} characters.")
        if not text:
            raise invalid_value("This field is required and must not be empty.")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate with `check` only."""
        return core_schema.with_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe text that is neither cleaned nor cut."""
        described = {"type": "string", "minLength": 1, "maxLength": self.max_length}
        return described | ({"format": self.format} if self.format else {})


def split_name(text: str) -> tuple[str, str]:
    """Return the name and the URI in `"Support" <sip:8000@acme.example>;tag=1` (RFC 3261, section 20.10).

    Any other text is taken for a URI without a name.
    """
    found = _NAME_ADDRESS.fullmatch(text)
    if not found:
        return "", text
    quoted, bare, uri = found.groups()
    return (re.sub(r"\\(.)", r"\1", quoted) if quoted else bare or "").strip(), uri.strip()


def take_name(data: Mapping[str, Any], number_field: str, name_field: str) -> Mapping[str, Any]:
    """Return the data with the name that was sent together with a number, unless there is another name."""
    number, name = data.get(number_field), data.get(name_field)
    if not isinstance(number, str) or "<" not in number or not (name is None or is_blank(name)):
        return data
    return {**data, name_field: split_name(clean_text(number))[0]}


def _parse_extension(text: str, info: ValidationInfo) -> str:
    """Return the extension in "sip:101@acme.example"."""
    uri = split_name(text)[1]
    user = _SCHEME.sub("", uri, count=1)
    if user == text and "@" not in text:
        return text
    warn(info, "Only the number in it was used.")
    return re.split("[:;]", user.partition("@")[0], maxsplit=1)[0].strip()


def _parse_phone_number(text: str, info: ValidationInfo) -> str:
    uri = split_name(text)[1]
    if uri != text:
        warn(info, "Only the number in it was used.")
    return uri


def _parse_sip_user(text: str, info: ValidationInfo) -> str:
    _reject_link(split_name(text)[1].partition("@")[0], info)
    return _parse_extension(text, info)


def _reject_link(text: str, info: ValidationInfo) -> str:
    """Return text without a link: people copy it from the email, where an email program would mark the link."""
    if isinstance(info.context, Incoming) and _LINK.search(text):
        raise invalid_value("Links are not allowed here.")
    return text


def _check_password(value: Any, info: ValidationInfo) -> str:
    """Return a password unchanged: one that is repaired would be another one."""
    text = as_text(value)
    if len(text) > MAX_PASSWORD_LENGTH or (not text.isprintable() and web_forms.has_control_characters(text)):
        raise invalid_value("Send at most 200 characters, without control characters such as line breaks.")
    return _reject_link(text, info)


def _check_pin(value: Any, info: ValidationInfo) -> str:
    text = as_text(value).strip()
    if isinstance(info.context, Incoming) and not _PIN.fullmatch(text):
        raise invalid_value("Send at most 32 digits.")
    return text


def _parse_host(text: str, info: ValidationInfo) -> str:
    host = host_in(text)
    if host != text and not _is_host(text):
        warn(info, "Only the host in it was used.")
    return host


def _is_host(text: str) -> bool:
    try:
        return bool(canonical_host(text))
    except PydanticCustomError:
        return False


def host_in(text: str) -> str:
    """Return the host in "sip:pbx.acme.example:5061", as an IP address or a domain name in its ASCII form."""
    found = None if _is_host(text) else _HOST_IN_URI.fullmatch(text)
    return canonical_host(found[1] or found[2] if found else text)


def canonical_host(text: str) -> str:
    """Return an IP address or domain name in its canonical form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return check_domain(text)


def check_domain(text: str) -> str:
    """Return a domain name in its ASCII form, lower case."""
    try:
        if len(text) > web_forms.MAX_DOMAIN_LENGTH:
            raise ValueError
        return _ascii_domain(text)
    except ValueError:
        raise invalid_value("Send a domain name, like acme.example.") from None


_ascii_domain = lru_cache(maxsize=1024)(web_forms.normalize_domain)  # events contain the same few again and again


def _parse_email(text: str, info: ValidationInfo) -> str:
    try:
        email = parse_email(text)
    except ValueError:
        raise invalid_value("Send one email address, like user@acme.example.") from None
    if " " in text or "<" in text:  # there is a name
        warn(info, "Only the email address in it was used.")
    return email


def _parse_language(text: str, info: ValidationInfo) -> str:
    """Return the language of a tag (RFC 5646) or of a locale's name, like "de" for "de-AT" and "de_AT.UTF-8"."""
    language = re.split(r"[-_.@]", text, maxsplit=1)[0].lower()
    if language not in LANGUAGES and isinstance(info.context, Incoming):
        raise invalid_value("Send one of these languages: {languages}.", languages=", ".join(LANGUAGES))
    return language


def fold_choice(value: Any) -> Any:
    """Return text as the choices are written."""
    return _SEPARATORS.sub("_", clean_text(value).lower()) if isinstance(value, str) else value


def check_id(value: Any, info: ValidationInfo) -> str:
    """Return an id. One that cannot be used is replaced by one derived from it, so that repeats are recognised."""
    text = "" if isinstance(value, bool | list | dict) else as_text(value)
    if text and len(text) <= MAX_ID_LENGTH and not web_forms.has_control_characters(text):
        return text
    warn(info, "This id was replaced. Send text of at most 200 characters, without control characters.")
    return str(uuid5(ID_NAMESPACE, json.dumps(value, sort_keys=True)))


def _check_timestamp(value: Any, info: ValidationInfo) -> datetime:
    try:
        timestamp = value if isinstance(value, datetime) else _parse_timestamp(value)
        timestamp = timestamp.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid_value(
            "Send a time as RFC 3339 with its offset, like 2026-11-23T09:05:00Z, or as Unix seconds."
        ) from None
    now = info.context.now if isinstance(info.context, Incoming) else None
    if now and not now - MAX_EVENT_AGE <= timestamp <= now + MAX_CLOCK_ERROR:
        raise invalid_value("This time is more than 30 days ago or more than a day ahead. Check the PBX's clock.")
    return timestamp


def _parse_timestamp(value: Any) -> datetime:
    if isinstance(value, str):
        value = value.strip()
        if _RFC3339.fullmatch(value.upper()):
            return datetime.fromisoformat(value.upper())
        value = float(value) if _UNIX_SECONDS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return UNIX_EPOCH + timedelta(seconds=value)  # unlike `fromtimestamp`: always OverflowError if out of range


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """A whole number within two bounds, sent as a number or as digits in a string: PBXs send both. It is rounded."""

    low: int
    high: int

    def check(self, value: Any, info: ValidationInfo) -> int:
        """Return the number."""
        number = value
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            number = float(value)
        if isinstance(number, float) and math.isfinite(number):
            rounded = math.floor(number + 0.5)
            if rounded != number:
                warn(info, "This was rounded to a whole number.")
            number = rounded
        if type(number) is not int or not self.low <= number <= self.high:
            raise invalid_value("Send a whole number from {low} to {high}.", low=self.low, high=self.high)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate with `check` only."""
        return core_schema.with_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe both notations."""
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]}


CHOICE = BeforeValidator(fold_choice)  # of a field with fixed choices
ShortText = Annotated[str, Text(200)]
PhoneNumber = Annotated[str, Text(200, _parse_phone_number)]  # or a SIP URI
Extension = Annotated[str, Text(64, _parse_extension)]
SipUser = Annotated[str, Text(64, _parse_sip_user)]
Username = Annotated[str, Text(200, _reject_link)]
Password = Annotated[
    str,
    BeforeValidator(_check_password),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_PASSWORD_LENGTH}),
]
Pin = Annotated[
    str,
    BeforeValidator(_check_pin),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 32, "pattern": "^[0-9*#]+$"}),
]
Host = Annotated[str, Text(253, _parse_host)]
Email = Annotated[str, Text(web_forms.MAX_EMAIL_LENGTH, _parse_email, format="email")]
Language = Annotated[str, Text(MAX_LANGUAGE_LENGTH, _parse_language)]
Seconds = Annotated[int, IntegerRange(0, MAX_DURATION)]
Count = Annotated[int, IntegerRange(0, 100_000)]
Port = Annotated[int, IntegerRange(1, 65_535)]
SipStatus = Annotated[int, IntegerRange(100, 699)]  # RFC 3261, section 7.2
Timestamp = Annotated[
    datetime,
    BeforeValidator(_check_timestamp),
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
