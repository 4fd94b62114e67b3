"""The form of a tenant."""

from zoneinfo import available_timezones

from flask_babel import lazy_gettext
from wtforms import SelectField
from wtforms.validators import InputRequired, Length

from portal.forms import CheckedBy, PortalForm, TextField, domain

REGIONS = ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


def time_zones() -> list[str]:
    """Return the time zones that are named for a place, and UTC."""
    return [
        "UTC",
        *sorted(zone for zone in available_timezones() if zone.startswith(tuple(f"{each}/" for each in REGIONS))),
    ]


class TenantForm(PortalForm):
    """A tenant's name, SIP domain and time zone."""

    name = TextField(lazy_gettext("Name"), [InputRequired(lazy_gettext("Enter the tenant's name.")), Length(max=100)])
    domain = TextField(
        lazy_gettext("SIP domain"),
        [InputRequired(lazy_gettext("Enter the SIP domain by which the PBX knows the tenant.")), CheckedBy(domain)],
        description=lazy_gettext("The domain by which the PBX knows the tenant, like acme.example."),
    )
    time_zone = SelectField(
        lazy_gettext("Time zone"),
        choices=time_zones,
        default="UTC",
        description=lazy_gettext("Times in mails and pages are shown in this zone."),
    )
