"""The form of a tenant."""

from functools import cache
from typing import Final
from zoneinfo import available_timezones

from flask_babel import gettext, lazy_gettext
from wtforms import SelectField, StringField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired

from portal.web.forms import Normalize, PortalForm, TextField, max_length, normalize_domain
from portal.web.i18n import LANGUAGES

REGIONS = ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")
# A page of that name would hide the one on which the tenant is edited: /system/tenants/<domain>.
RESERVED: Final = frozenset({"import", "new"})


@cache  # available_timezones() reads each file: 50 ms
def time_zones() -> list[str]:
    """Return UTC and the time zones that are named after a place."""
    return ["UTC", *sorted(zone for zone in available_timezones() if zone.partition("/")[0] in REGIONS)]


class TenantForm(PortalForm):
    """A tenant's name, SIP domain, realm, time zone and, when it is added, language."""

    name = TextField(lazy_gettext("Name"), [DataRequired(lazy_gettext("Enter the tenant's name.")), max_length(100)])
    domain = TextField(
        lazy_gettext("SIP domain"),
        [DataRequired(lazy_gettext("Enter the tenant's SIP domain.")), Normalize(normalize_domain)],
        description=lazy_gettext("The domain that identifies the tenant on the PBX, like acme.example."),
    )
    realm = TextField(
        lazy_gettext("Realm"),
        [max_length(200)],
        description=lazy_gettext(
            "The realm of the PBX's SIP registrar, such as “asterisk” on Asterisk and FreePBX. Default: the SIP domain."
        ),
    )
    time_zone = SelectField(
        lazy_gettext("Time zone"),
        choices=time_zones,
        default="UTC",
        description=lazy_gettext("Times in emails and on pages are shown in this time zone."),
    )
    language = SelectField(
        lazy_gettext("Language"),
        choices=[SelectChoice(tag, name, {"lang": tag}) for tag, name in LANGUAGES.items()],
        default="en",
        description=lazy_gettext("The language of its emails. The tenant can change it under Appearance."),
    )

    def validate_domain(self, field: StringField) -> None:
        """Reject the name of a page, except for a tenant that has it already."""
        if field.data in RESERVED and field.data != field.object_data:
            text = gettext("“%(text)s” is reserved. Use a name like “acme.example”.", text=field.data)
            raise ValidationError(text)
