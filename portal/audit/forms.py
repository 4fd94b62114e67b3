"""What is looked for in the audit trail."""

from datetime import MAXYEAR, datetime, timedelta
from zoneinfo import ZoneInfo

from flask_babel import gettext, lazy_gettext, lazy_pgettext
from wtforms import DateTimeLocalField, SelectField
from wtforms.fields import SelectChoice
from wtforms.validators import Optional

from portal.audit.actions import ACTIONS
from portal.audit.trail import Wanted
from portal.audit.words import label
from portal.forms import PortalForm, TextField

FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


class TrailForm(PortalForm):
    """Who, what, from when to when, in the time zone of the page."""

    person = TextField(lazy_gettext("Who"))
    action = SelectField(
        lazy_gettext("What"),
        choices=lambda: [
            SelectChoice("", gettext("Anything")),
            *(SelectChoice(name, label(name)) for name in ACTIONS),
        ],
        default="",
    )
    since = DateTimeLocalField(lazy_pgettext("since", "From"), [Optional()], format=FORMATS)
    until = DateTimeLocalField(lazy_pgettext("until", "To"), [Optional()], format=FORMATS)

    def wanted(self, zone: str) -> Wanted:
        """Return what a valid form asks for. The minute that it ends with belongs to it."""
        until = _in_zone(self.until.data, zone)
        return Wanted(
            self.person.data or "",
            self.action.data or "",
            _in_zone(self.since.data, zone),
            until + timedelta(minutes=1) if until and until.year < MAXYEAR else until,
        )


def _in_zone(moment: datetime | None, zone: str) -> datetime | None:
    return moment.replace(tzinfo=ZoneInfo(zone)) if moment else None
