"""From an event to the values of a template's placeholders, in the tenant's language and time zone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, get_datetime_format, get_timezone_gmt
from babel.units import format_unit
from pydantic import BaseModel

from portal import config
from portal.languages import locale, translated
from portal.notifications.brand import COMMON, PLAIN, Brand
from portal.notifications.templates import Rich, exact
from portal.tenants.models import Tenant

UNITS = (("duration-day", 86_400), ("duration-hour", 3_600), ("duration-minute", 60), ("duration-second", 1))


@dataclass(frozen=True, slots=True)
class Context:
    """Whose mail it is."""

    tenant_name: str
    tenant_domain: str
    time_zone: str
    locale: str = "en"
    pbx_web_domain: str = ""
    brand: Brand = PLAIN

    @classmethod
    def of(cls, tenant: Tenant) -> "Context":
        """Return the context of a tenant's mails."""
        return cls(
            tenant_name=tenant.mail_name,
            tenant_domain=tenant.domain,
            time_zone=tenant.time_zone,
            locale=tenant.locale,
            pbx_web_domain=config.current().pbx_web_domain,
            brand=Brand(tenant.mail_colour, tenant.mail_footer),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What a value may need to be put into words: the whole event and its context."""

    data: BaseModel
    time: datetime
    context: Context


def plain(value: Any, _scene: Scene) -> str:
    """Return the value as it is: text, which never becomes a link."""
    return str(value)


def to_copy(value: Any, _scene: Scene) -> Rich:
    """Return the value for people to copy."""
    return exact(str(value))


def duration(value: int, scene: Scene) -> str:
    """Return seconds in words, such as "1 minute 30 seconds"."""
    return _duration(value, scene.context.locale)


def since(value: datetime, scene: Scene) -> str:
    """Return in words how long before the event the time was; empty where it was not before it."""
    seconds = int((scene.time - value).total_seconds())
    return _duration(seconds, scene.context.locale) if seconds >= 0 else ""


def moment(value: datetime, scene: Scene) -> str:
    """Return a time such as "23 November 2026, 10:05:00 CET"."""
    language, local = locale(scene.context.locale), value.astimezone(ZoneInfo(scene.context.time_zone))
    zone = local.tzname() or ""
    if not zone.isalpha():  # the time zone database gives many places a bare number
        zone = get_timezone_gmt(local, width="long", locale=language)
    clock = format_time(local, "medium", locale=language)
    return f"{_on_day(local.date(), language).replace('{0}', clock)} {zone}"


def clock(value: datetime, scene: Scene) -> str:
    """Return the time of day, such as "10:05"."""
    local = value.astimezone(ZoneInfo(scene.context.time_zone))
    return format_time(local, "short", locale=locale(scene.context.locale))


def one_of(words: Mapping[str, str]) -> Callable[[str, Scene], str]:
    """Return how a choice is put into words, which are marked `to_translate`."""
    return lambda value, scene: translated(scene.context.locale, words[value])


def out_of(field: str) -> Callable[[int, Scene], str]:
    """Return how a count is put into words: "2 of 3" where the event has `field`, else "2"."""

    def words(value: int, scene: Scene) -> str:
        whole = getattr(scene.data, field)
        if not whole:
            return str(value)
        return translated(scene.context.locale, "%(count)s of %(whole)s", count=value, whole=whole)

    return words


@dataclass(frozen=True, slots=True)
class Feeds:
    """Mark of a field of an event: the placeholder that its value fills in.

    `words` puts the value into words; `otherwise` names placeholders that stand in, the first one with a value, where
    the event does not carry the field.
    """

    placeholder: str
    words: Callable[[Any, Scene], str | Rich] = plain
    otherwise: tuple[str, ...] = ()


@cache
def feeds(model: type[BaseModel]) -> Mapping[str, Feeds]:
    """Return what each field of an event's data feeds, by the field's name."""
    marks = ((name, mark) for name, field in model.model_fields.items() for mark in field.metadata)
    return {name: mark for name, mark in marks if isinstance(mark, Feeds)}


def names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the placeholders that an event with such data fills in."""
    return tuple(dict.fromkeys((*COMMON, *(mark.placeholder for mark in feeds(model).values()))))


def values(data: BaseModel, time: datetime, context: Context) -> dict[str, str | Rich]:
    """Return the value of each placeholder that the event fills in; what it does not carry is not in it."""
    scene = Scene(data, time, context)
    found: dict[str, str | Rich] = {
        "TENANT_NAME": context.tenant_name,
        "DOMAIN": exact(context.tenant_domain),
        "PBX_WEB_DOMAIN": exact(context.pbx_web_domain),
        "DATE_TIME": moment(time, scene),
    }
    marks = feeds(type(data))
    for field, mark in marks.items():
        value = getattr(data, field)
        if value is not None:
            found[mark.placeholder] = mark.words(value, scene)
    for mark in marks.values():
        stand_ins = [found[name] for name in mark.otherwise if name in found]
        if mark.placeholder not in found and stand_ins:
            found[mark.placeholder] = stand_ins[0]
    return found


@lru_cache(maxsize=1024)
def _on_day(day: date, language: Locale) -> str:
    """Return a moment of that day, with `{0}` for the time."""
    pattern = str(get_datetime_format("long", locale=language)).replace("'", "")
    return pattern.replace("{1}", format_date(day, "long", locale=language))


@cache
def _unit(number: int, unit: str, tag: str) -> str:
    # Babel has no long words in Chinese for most units, and gives the unit's name.
    words = format_unit(number, unit, "long", locale=locale(tag))
    return words if unit not in words else format_unit(number, unit, "short", locale=locale(tag))


def _duration(seconds: int, tag: str) -> str:
    words: list[str] = []
    for unit, size in UNITS:
        number, seconds = divmod(seconds, size)
        if number or (unit == "duration-second" and not words):
            words.append(_unit(number, unit, tag))
    return ("" if tag.startswith("zh") else " ").join(words)
