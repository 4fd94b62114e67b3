"""Placeholders and how the values of an event's fields are written in emails, in the reader's language."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, lru_cache
from html import escape
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, get_datetime_format, get_timezone_gmt
from babel.units import format_unit
from pydantic import BaseModel

from portal.web.i18n import locale_of, translated

# In every email; allowed in footers.
COMMON_PLACEHOLDERS = ("TENANT_NAME", "DOMAIN", "PBX_WEB_DOMAIN", "DATE_TIME", "REPLY_TO")
UNITS = (("duration-day", 86_400), ("duration-hour", 3_600), ("duration-minute", 60), ("duration-second", 1))

# Where a break keeps email programs from turning text such as "evil.example" into a link.
_AUTOLINK_POSITION = re.compile(r"(?<=[.@/\\:\u3002\uff0e\uff61])(?<!\d:)(?=\S)")
_NON_JOINER = "\u200c"

# Digits and the visual separators of RFC 3966, section 5.1.1, spaces and slashes. No * and #, which are for codes.
_PHONE_NUMBER = re.compile(r"\+?[0-9(][0-9 ()./-]{0,40}[0-9]", re.ASCII)
_NO_DIGITS = re.compile(r"\D", re.ASCII)
_NUMBER_OF_DIGITS = range(3, 16)  # from an extension to the maximum of ITU-T E.164, section 6.1


class RichValue(NamedTuple):
    """A value with ready-made HTML, which is not escaped again, and the same as plain text."""

    html: str
    text: str


Value: TypeAlias = str | RichValue
Values: TypeAlias = Mapping[str, Value]


def plain_text(value: str | RichValue) -> str:
    """Return the plain text of a value."""
    return value.text if isinstance(value, RichValue) else value


def copyable(value: str) -> RichValue:
    """Return a value that people copy, such as a password: exactly these characters."""
    return RichValue(escape(value), value)


def prevent_autolinks(text: str) -> str:
    """Return the text with invisible breaks, so that no email program turns a part of it into a link."""
    return _AUTOLINK_POSITION.sub(_NON_JOINER, text)


def is_same_text(one: str | RichValue, other: str | RichValue) -> bool:
    """Return whether people read the same in both values."""
    return plain_text(one).replace(_NON_JOINER, "") == plain_text(other).replace(_NON_JOINER, "")


def link(url: str, text: str) -> RichValue:
    """Return a link to a URL that the portal itself creates. Its colour is that of the text around it."""
    return RichValue(f'<a href="{escape(url)}" style="color: inherit">{escape(text)}</a>', text)


def phone_link(number: str) -> str | RichValue:
    """Return a link that calls the number, or the text itself if it is not a phone number."""
    digits = _NO_DIGITS.sub("", number)
    is_number = _PHONE_NUMBER.fullmatch(number) and len(digits) in _NUMBER_OF_DIGITS
    if not is_number or "(0)" in number:  # which is left out after a country code
        return number
    return link(f"tel:{'+' if number.startswith('+') else ''}{digits}", number)


@dataclass(frozen=True, slots=True)
class ValueContext:
    """What a formatter may need: the whole event, and the reader's time zone (IANA) and language."""

    data: BaseModel
    time: datetime
    time_zone: str
    language: str


def format_text(value: Any, _context: ValueContext) -> str:
    """Return the value as text, which never becomes a link."""
    return str(value)


def format_copyable(value: Any, _context: ValueContext) -> RichValue:
    """Return the value as text to copy."""
    return copyable(str(value))


def format_phone_number(number: str, _context: ValueContext) -> str | RichValue:
    """Return a phone number as a link that calls it; other text as text."""
    return phone_link(number)


def format_duration(seconds: int, context: ValueContext) -> str:
    """Return a duration such as "1 minute 30 seconds"."""
    return _format_seconds(seconds, context.language)


def format_elapsed(start: datetime, context: ValueContext) -> str:
    """Return the duration from `start` to the event; empty if `start` is later than the event."""
    seconds = int((context.time - start).total_seconds())
    return _format_seconds(seconds, context.language) if seconds >= 0 else ""


def format_date_time(value: datetime, context: ValueContext) -> str:
    """Return a time such as "23 November 2026, 10:05:00 CET"."""
    return _format_second(value.replace(microsecond=0), context.time_zone, context.language)


def format_time_of_day(value: datetime, context: ValueContext) -> str:
    """Return the time of day, such as "10:05"."""
    local = value.astimezone(ZoneInfo(context.time_zone))
    return format_time(local, "short", locale=locale_of(context.language))


def format_choice(texts: Mapping[str, str]) -> Callable[[str, ValueContext], str]:
    """Return a formatter for a field with fixed choices; `texts` are marked with `to_translate`."""
    return lambda value, context: translated(context.language, texts[value])


def format_out_of(total_field: str) -> Callable[[int, ValueContext], str]:
    """Return a formatter that writes "2 of 3" if the event has `total_field`, else "2"."""

    def format_count(count: int, context: ValueContext) -> str:
        total = getattr(context.data, total_field)
        if not total:
            return str(count)
        return translated(context.language, "%(count)s of %(whole)s", count=count, whole=total)

    return format_count


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Annotation of an event's field: the placeholder that its value fills in.

    If the event does not carry the field, the first of the `fallbacks` (names of other placeholders) that has a value
    is used instead, and otherwise the text `unknown` (marked with `to_translate`) if there is one.
    """

    name: str
    format: Callable[[Any, ValueContext], str | RichValue] = format_text
    fallbacks: tuple[str, ...] = ()
    unknown: str | None = None


@cache
def placeholders_by_field(model: type[BaseModel]) -> Mapping[str, Placeholder]:
    """Return the placeholder of each field that fills one in."""
    annotations = ((name, annotation) for name, field in model.model_fields.items() for annotation in field.metadata)
    return {name: annotation for name, annotation in annotations if isinstance(annotation, Placeholder)}


def placeholder_names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the placeholders that an event with this data fills in."""
    own = (placeholder.name for placeholder in placeholders_by_field(model).values())
    return tuple(dict.fromkeys((*COMMON_PLACEHOLDERS, "EVENT_URL", *own)))


@lru_cache(maxsize=1024)
def _format_second(value: datetime, time_zone: str, language_code: str) -> str:
    language, local = locale_of(language_code), value.astimezone(ZoneInfo(time_zone))
    zone = local.tzname() or ""
    if not zone.isalpha():  # the time zone database has only a number for many places
        zone = get_timezone_gmt(local, width="long", locale=language)
    time_of_day = format_time(local, "medium", locale=language)
    return f"{_date_pattern(local.date(), language).replace('{0}', time_of_day)} {zone}"


@lru_cache(maxsize=1024)
def _date_pattern(day: date, language: Locale) -> str:
    """Return the date, with `{0}` in place of the time of day."""
    pattern = str(get_datetime_format("long", locale=language)).replace("'", "")
    return pattern.replace("{1}", format_date(day, "long", locale=language))


@cache
def _format_unit(number: int, unit: str, language: str) -> str:
    # For Chinese, Babel's long form of most units is the unit's identifier.
    text = format_unit(number, unit, "long", locale=locale_of(language))
    return text if unit not in text else format_unit(number, unit, "short", locale=locale_of(language))


def _format_seconds(seconds: int, language: str) -> str:
    parts: list[str] = []
    for unit, size in UNITS:
        number, seconds = divmod(seconds, size)
        if number or (unit == "duration-second" and not parts):
            parts.append(_format_unit(number, unit, language))
    return ("" if language.startswith("zh") else " ").join(parts)
