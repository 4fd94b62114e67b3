"""The filter form of the audit trail."""

from datetime import MAXYEAR, datetime, timedelta
from zoneinfo import ZoneInfo

from flask_babel import gettext, lazy_gettext, lazy_pgettext
from wtforms import DateTimeLocalField, SelectField
from wtforms.fields import SelectChoice
from wtforms.validators import Optional

from portal.audit.formatting import action_label
from portal.audit.labels import ACTIONS
from portal.audit.queries import AuditFilter
from portal.web.forms import PortalForm, TextField

TIME_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


class AuditFilterForm(PortalForm):
    """The actor, the action, the time span in the time zone of the page and, for all tenants, the tenant to show."""

    tenant = TextField(lazy_gettext("Tenant"))
    actor = TextField(lazy_gettext("Who"))
    action = SelectField(
        lazy_gettext("What"),
        choices=lambda: [
            SelectChoice("", gettext("Anything")),
            *(SelectChoice(name, action_label(name)) for name in ACTIONS),
        ],
        default="",
    )
    since = DateTimeLocalField(lazy_pgettext("since", "From"), [Optional()], format=TIME_FORMATS)
    until = DateTimeLocalField(lazy_pgettext("until", "To"), [Optional()], format=TIME_FORMATS)

    def filters(self, time_zone: str) -> AuditFilter:
        """Return the filters of a valid form. The last minute is included."""
        until = _in_zone(self.until.data, time_zone)
        return AuditFilter(
            self.actor.data or "",
            self.action.data or "",
            _in_zone(self.since.data, time_zone),
            until + timedelta(minutes=1) if until and until.year < MAXYEAR else until,
        )


def _in_zone(time: datetime | None, zone: str) -> datetime | None:
    return time.replace(tzinfo=ZoneInfo(zone)) if time else None
