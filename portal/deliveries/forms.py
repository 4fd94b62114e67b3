"""What is looked for in the delivery log."""

from datetime import MAXYEAR, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from babel.dates import format_date
from flask_babel import lazy_gettext, lazy_pgettext
from wtforms import DateField, SelectField
from wtforms.fields import Field, SelectChoice
from wtforms.validators import Length, Optional

from portal.deliveries.search import Wanted
from portal.deliveries.states import Status
from portal.forms import PortalForm, TextField
from portal.notifications.digest import EVERY_KIND
from portal.ui import readers_locale

OUTCOMES: Final = {
    Status.SENT: lazy_gettext("Sent"),
    Status.PARTIAL: lazy_gettext("Partly sent"),
    Status.DEFERRED: lazy_gettext("Will try again"),
    Status.HELD: lazy_gettext("Held"),
    Status.FAILED: lazy_gettext("Failed"),
    Status.EXPIRED: lazy_gettext("Expired"),
    Status.DISCARDED: lazy_gettext("Discarded"),
    Status.IGNORED: lazy_gettext("Ignored"),
}
_SHORT = Length(max=200, message=lazy_gettext("Enter at most %(most)s characters.", most=200))


class LogForm(PortalForm):
    """Which events; its fields are the parameters of the log's address. Days are those of the tenant's time zone."""

    q = TextField(lazy_gettext("Search"), [_SHORT])
    event = SelectField(
        lazy_gettext("Event"),
        choices=[
            SelectChoice("", lazy_gettext("Any event")),
            *(SelectChoice(each.type, lazy_gettext(each.label)) for each in EVERY_KIND.values()),
        ],
        default="",
    )
    outcome = SelectField(
        lazy_gettext("Outcome"),
        choices=[SelectChoice("", lazy_gettext("Any outcome")), *(SelectChoice(*each) for each in OUTCOMES.items())],
        default="",
    )
    recipient = TextField(lazy_gettext("Recipient"), [_SHORT])
    queue = TextField(lazy_gettext("Queue"), [_SHORT])
    since = DateField(lazy_pgettext("since", "From"), [Optional()])
    until = DateField(lazy_pgettext("until", "To"), [Optional()])

    def wanted(self, zone: str) -> Wanted:
        """Return what a valid form asks for. The day that it ends with belongs to it."""
        return Wanted(
            event=self.event.data or "",
            outcome=self.outcome.data or "",
            recipient=self.recipient.data or "",
            queue=self.queue.data or "",
            since=_begins(self.since.data, zone),
            until=_begins(_day_after(self.until.data), zone),
            text=self.q.data or "",
        )

    def active(self) -> dict[str, tuple[str, str]]:
        """Return label and value in words of each field that narrows the log, by its name."""
        return {each.name: (str(each.label.text), _in_words(each)) for each in self if each.data}


def _in_words(field: Field) -> str:
    """Return what is looked for: a choice's label, a day as people write it, or the text itself."""
    if isinstance(field, SelectField):
        labels = {value: str(label) for value, label, *_ in field.iter_choices()}
        return labels.get(field.data, str(field.data))
    return format_date(field.data, locale=readers_locale()) if isinstance(field.data, date) else str(field.data)


def _begins(day: date | None, zone: str) -> datetime | None:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) if day else None


def _day_after(day: date | None) -> date | None:
    return day + timedelta(days=1) if day and day.year < MAXYEAR else day
