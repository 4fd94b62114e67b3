"""The filter form of the tenants list, and the search of system administrators."""

from flask_babel import gettext, lazy_gettext, pgettext
from wtforms import SelectField
from wtforms.fields import SelectChoice

from portal.overview.tenant_list import ANY_PROBLEM, DEFAULT_SORT, SORTABLE, Health, TenantFilter
from portal.web.forms import PortalForm, TextField, max_length
from portal.web.i18n import to_translate

MAX_SEARCH_LENGTH = 200
MAX_ID_LENGTH = 998  # of a Message-ID: a line of an email (RFC 5322, section 2.1.1)
HEALTH_LABELS = {
    Health.NOT_SENDING: to_translate("Not sending"),
    Health.FAILING: to_translate("Emails failed"),
    Health.DELAYED: to_translate("Delayed"),
    Health.WORKING: to_translate("Working"),
    Health.UNUSED: to_translate("Not in use"),
    Health.SUSPENDED: to_translate("Suspended"),
}
SERVER_LABELS = {"own": to_translate("Own"), "shared": to_translate("Shared"), "none": to_translate("None")}
COLUMN_LABELS = {
    "name": to_translate("Tenant"),
    "health": to_translate("Health"),
    "server": to_translate("Mail server"),
    "held": to_translate("Held"),
    "last_event": to_translate("Last event"),
    "administrators": to_translate("Administrators"),
}


def _health_choices() -> list[SelectChoice]:
    labels = [(str(health), gettext(label)) for health, label in HEALTH_LABELS.items()]
    return [SelectChoice("", gettext("Any")), SelectChoice(ANY_PROBLEM, gettext("With problems"))] + [
        SelectChoice(*choice) for choice in labels
    ]


def _server_choices() -> list[SelectChoice]:
    labels = [(name, gettext(label)) for name, label in SERVER_LABELS.items()]
    return [SelectChoice("", gettext("Any")), *(SelectChoice(*choice) for choice in labels)]


def _sort_choices() -> list[SelectChoice]:
    return [
        SelectChoice(sign + name, f"{gettext(COLUMN_LABELS[name])} {arrow}")
        for name in SORTABLE
        for sign, arrow in (("", "↑"), ("-", "↓"))
    ]


class TenantFilterForm(PortalForm):
    """Which tenants to list, and in which order."""

    q = TextField(lazy_gettext("Name or SIP domain"), [max_length(MAX_SEARCH_LENGTH)])
    health = SelectField(lazy_gettext("Health"), choices=_health_choices, default="")
    server = SelectField(lazy_gettext("Mail server"), choices=_server_choices, default="")
    administrators = SelectField(
        lazy_gettext("Administrators"),
        choices=lambda: [SelectChoice("", gettext("Any")), SelectChoice("none", pgettext("administrators", "None"))],
        default="",
    )
    sort = SelectField(lazy_gettext("Sort by"), choices=_sort_choices, default=DEFAULT_SORT)

    def filters(self) -> TenantFilter:
        """Return the filters of a valid form."""
        return TenantFilter(
            self.q.data or "",
            self.health.data,
            self.server.data,
            without_administrator=self.administrators.data == "none",
        )


class SystemSearchForm(PortalForm):
    """What to find among all tenants."""

    q = TextField(lazy_gettext("Search"), [max_length(MAX_ID_LENGTH)])
