"""The form of a tenant's brand."""

from typing import Final

from flask_babel import gettext, lazy_gettext
from wtforms import SelectField, TextAreaField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import Length

from portal.forms import CheckedBy, PortalForm, TextField, has_control_characters
from portal.languages import LANGUAGES, locale
from portal.notifications import colours
from portal.notifications.brand import COMMON
from portal.notifications.templates import unknown_placeholders
from portal.tenants.models import Tenant

KNOWN: Final = ", ".join(f"%%{name}%%" for name in COMMON)


class BrandForm(PortalForm):
    """The name, colour, footer and language of a tenant's mails."""

    sender_name = TextField(
        lazy_gettext("Sender name"),
        [Length(max=100, message=lazy_gettext("Enter at most %(most)s characters.", most=100))],
        description=lazy_gettext("Mails come from this name and speak of it."),
    )
    colour = TextField(lazy_gettext("Colour"), [CheckedBy(colours.colour)])
    footer = TextAreaField(
        lazy_gettext("Footer"),
        [Length(max=500, message=lazy_gettext("Enter at most %(most)s characters.", most=500))],
        description=lazy_gettext("Plain text. %(placeholders)s are filled in.", placeholders=KNOWN),
    )
    locale = SelectField(
        lazy_gettext("Language"), choices=[SelectChoice(tag, name, {"lang": tag}) for tag, name in LANGUAGES.items()]
    )

    @classmethod
    def showing(cls, tenant: Tenant) -> "BrandForm":
        """Return the form with what is saved."""
        data = {
            "sender_name": tenant.sender_name,
            "colour": tenant.mail_colour or colours.DEFAULT,
            "footer": tenant.mail_footer,
            "locale": locale(tenant.locale).language,
        }
        return cls(formdata=None, data=data)

    def validate_footer(self, field: TextAreaField) -> None:
        """Refuse what would stay empty in each mail, or is no text."""
        field.data = "\n".join(line.rstrip() for line in (field.data or "").strip().splitlines())
        if has_control_characters(field.data.replace("\n", "")):
            raise ValidationError(gettext("Control characters are not allowed here."))
        unknown = unknown_placeholders("", field.data, COMMON)
        if unknown:
            about = {"unknown": f"%%{unknown[0]}%%", "known": KNOWN}
            raise ValidationError(gettext("A footer does not know %(unknown)s. It knows %(known)s.", **about))
