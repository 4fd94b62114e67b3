"""Template filters for dates, durations and numbers in the reader's language."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_skeleton, format_timedelta
from babel.numbers import format_decimal
from flask import Flask
from flask_babel import get_locale, gettext
from markupsafe import Markup, escape

from portal.database import clock
from portal.web.i18n import locale_of

TIME = "%H:%M"
MAX_LISTED = 10


def init_app(app: Flask) -> None:
    """Register the filters."""
    for template_filter in (local_time, local_clock, ago, time_later, day, duration, decimal):
        app.add_template_filter(template_filter)


def local_time(moment: datetime, zone: str) -> Markup:
    """Return a `time` element that shows the moment in an IANA time zone."""
    return _time_element(moment, date_and_time(moment, zone), title="")


def local_clock(moment: datetime, zone: str) -> Markup:
    """Return a `time` element that shows the hour and the minute in an IANA time zone."""
    return _time_element(moment, f"{moment.astimezone(ZoneInfo(zone)):{TIME}}", title="")


def ago(moment: datetime, zone: str) -> Markup:
    """Return a `time` element that shows how long ago the moment was ("3 minutes ago"), or how soon ("in 3 minutes").

    Its title is the time in the zone.
    """
    text = format_timedelta(moment - clock.now(), add_direction=True, locale=current_locale())
    return _time_element(moment, text, title=date_and_time(moment, zone))


def date_and_time(moment: datetime, zone: str) -> str:
    """Return the date and the time of day in an IANA time zone, as plain text."""
    reader = current_locale()
    try:
        there = moment.astimezone(ZoneInfo(zone))
    except OverflowError:  # the last second of 9999: a certificate without an end (RFC 5280, section 4.1.2.5)
        there = moment
    return f"{_short_date(there.date(), reader)}, {there:{TIME}}"


@lru_cache(maxsize=256)
def _short_date(date: date, reader: Locale) -> str:
    return format_skeleton("yMMMd", date, locale=reader)


def current_locale() -> Locale:
    """Return the locale of the page."""
    return locale_of(str(get_locale() or "en"))


def time_later(time: timedelta) -> str:
    """Return how much later something happened: "2 minutes later", or "at once" within a second."""
    if time < timedelta(seconds=1):
        return gettext("at once")
    return gettext("%(time)s later", time=format_timedelta(time, threshold=1.5, locale=current_locale()))


def day(moment: datetime, zone: str) -> str:
    """Return the day in the zone, such as "5 December", with its year unless it is the current one."""
    local = moment.astimezone(ZoneInfo(zone))
    this_year = local.year == clock.now().astimezone(local.tzinfo).year
    return format_skeleton("MMMMd" if this_year else "yMMMMd", local, locale=current_locale())


def long_date(day: date) -> str:
    """Return a date with its weekday: "Saturday, 5 December 2026"."""
    return str(format_date(day, "full", locale=current_locale()))


def long_list(items: Sequence[str]) -> str:
    """Return the items with commas, and only the number of those after the tenth."""
    text, more = ", ".join(items[:MAX_LISTED]), len(items) - MAX_LISTED
    return gettext("%(items)s and %(count)s more", items=text, count=more) if more > 0 else text


def decimal(number: int) -> str:
    """Return a number with separated thousands: "1,204"."""
    return _decimal(number, current_locale())


@lru_cache(maxsize=1024)
def _decimal(number: int, locale: Locale) -> str:
    return format_decimal(number, locale=locale)


def duration(seconds: float) -> str:
    """Return a duration as "35 ms" or "1.4 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{format_decimal(seconds, '0.0', locale=current_locale())} s"


def _time_element(moment: datetime, text: str, title: str) -> Markup:
    utc = moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    titled = f' title="{escape(title)}"' if title else ""
    return Markup(f'<time datetime="{utc}"{titled}>{escape(text)}</time>')  # noqa: S704 (all of it is escaped)
