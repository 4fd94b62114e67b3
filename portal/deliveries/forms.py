"""What is looked for in the delivery log."""

from datetime import MAXYEAR, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from wtforms import DateField, SelectField
from wtforms.fields import Field, SelectChoice
from wtforms.validators import Length, Optional

from portal.deliveries.search import Wanted
from portal.deliveries.states import Status
from portal.forms import PortalForm, TextField
from portal.notifications.digest import EVERY_KIND

OUTCOMES: Final = {
    Status.SENT: "Sent",
    Status.PARTIAL: "Partly sent",
    Status.DEFERRED: "Will try again",
    Status.HELD: "Held",
    Status.FAILED: "Failed",
    Status.EXPIRED: "Expired",
    Status.DISCARDED: "Discarded",
    Status.IGNORED: "Ignored",
}
_SHORT = Length(max=200, message="Enter at most 200 characters.")


class LogForm(PortalForm):
    """Which events; its fields are the parameters of the log's address. Days are those of the tenant's time zone."""

    q = TextField("Search", [_SHORT])
    event = SelectField(
        "Event",
        choices=[SelectChoice("", "Any event"), *(SelectChoice(each.type, each.label) for each in EVERY_KIND.values())],
        default="",
    )
    outcome = SelectField(
        "Outcome",
        choices=[SelectChoice("", "Any outcome"), *(SelectChoice(*each) for each in OUTCOMES.items())],
        default="",
    )
    recipient = TextField("Recipient", [_SHORT])
    queue = TextField("Queue", [_SHORT])
    since = DateField("From", [Optional()])
    until = DateField("To", [Optional()])

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
        return {each.name: (each.label.text, _in_words(each)) for each in self if each.data}


def _in_words(field: Field) -> str:
    """Return what is looked for: a choice's label, a day as people write it, or the text itself."""
    if isinstance(field, SelectField):
        labels = {value: str(label) for value, label, *_ in field.iter_choices()}
        return labels.get(field.data, str(field.data))
    return f"{field.data:%-d %b %Y}" if isinstance(field.data, date) else str(field.data)


def _begins(day: date | None, zone: str) -> datetime | None:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) if day else None


def _day_after(day: date | None) -> date | None:
    return day + timedelta(days=1) if day and day.year < MAXYEAR else day
