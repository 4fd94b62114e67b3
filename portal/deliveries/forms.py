"""The filter form of the delivery log."""

from collections.abc import Mapping
from datetime import MAXYEAR, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel.dates import format_date
from flask_babel import lazy_gettext, lazy_pgettext
from flask_babel.speaklater import LazyString
from wtforms import DateField, SelectField
from wtforms.fields import Field, SelectChoice
from wtforms.validators import Optional

from portal.deliveries.search import LogFilter
from portal.deliveries.status import Status
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.web.filters import current_locale
from portal.web.forms import PortalForm, TextField, max_length

STATUS_LABELS: Final = {
    Status.SENT: lazy_gettext("Sent"),
    Status.PARTIAL: lazy_gettext("Partly sent"),
    Status.DEFERRED: lazy_gettext("Will try again"),
    Status.HELD: lazy_gettext("Held"),
    Status.FAILED: lazy_gettext("Failed"),
    Status.EXPIRED: lazy_gettext("Expired"),
    Status.DISCARDED: lazy_gettext("Discarded"),
    Status.IGNORED: lazy_gettext("Ignored"),
}
EVENT_LABELS: Final = {name: lazy_gettext(event_type.label) for name, event_type in ALL_EVENT_TYPES.items()}
_MAX_LENGTH = max_length(200)


def _select(label: LazyString, any_value: LazyString, labels: Mapping[Any, LazyString]) -> SelectField:
    choices = [SelectChoice("", any_value), *(SelectChoice(value, text) for value, text in labels.items())]
    return SelectField(label, choices=choices, default="")


class LogFilterForm(PortalForm):
    """Which events to show. The fields are the parameters of the log's URL; days are in the tenant's time zone."""

    q = TextField(lazy_gettext("Search"), [_MAX_LENGTH])
    event = _select(lazy_gettext("Event"), lazy_gettext("Any event"), EVENT_LABELS)
    outcome = _select(lazy_gettext("Outcome"), lazy_gettext("Any outcome"), STATUS_LABELS)
    recipient = TextField(lazy_gettext("Recipient"), [_MAX_LENGTH])
    queue = TextField(lazy_gettext("Queue"), [_MAX_LENGTH])
    since = DateField(lazy_pgettext("since", "From"), [Optional()])
    until = DateField(lazy_pgettext("until", "To"), [Optional()])

    def log_filter(self, time_zone: str) -> LogFilter:
        """Return the filter of a valid form. The last day is included."""
        return LogFilter(
            event_type=self.event.data or "",
            status=self.outcome.data or "",
            recipient=self.recipient.data or "",
            queue=self.queue.data or "",
            since=_start_of_day(self.since.data, time_zone),
            until=_start_of_day(self.until.data, time_zone, days_later=1),
            text=self.q.data or "",
        )

    def active_filters(self) -> dict[str, tuple[str, str]]:
        """Return the label and the readable value of each field that is filled in, by the field's name."""
        return {field.name: (str(field.label.text), _readable_value(field)) for field in self if field.data}


def _readable_value(field: Field) -> str:
    if isinstance(field, SelectField):
        labels = {value: str(label) for value, label, *_ in field.iter_choices()}
        return labels.get(field.data, str(field.data))
    return format_date(field.data, locale=current_locale()) if isinstance(field.data, date) else str(field.data)


def _start_of_day(day: date | None, time_zone: str, days_later: int = 0) -> datetime | None:
    if day and day.year < MAXYEAR:
        day += timedelta(days=days_later)
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(time_zone)) if day else None
