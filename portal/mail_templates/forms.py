"""The forms of a template and of a tenant's branding."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from flask_babel import gettext, lazy_gettext
from wtforms import HiddenField, RadioField, SelectField, TextAreaField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired

from portal.events.values import COMMON_PLACEHOLDERS
from portal.mail_templates import branding
from portal.mail_templates.compiler import unknown_placeholders
from portal.mail_templates.models import MAX_BODY_LENGTH, MAX_MARKDOWN_LENGTH, MAX_SUBJECT_LENGTH
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.tenants.models import Tenant
from portal.web.forms import Normalize, PortalForm, TextField, has_control_characters, max_length
from portal.web.i18n import LANGUAGES, locale_of

FOOTER_PLACEHOLDERS: Final = ", ".join(f"%%{name}%%" for name in COMMON_PLACEHOLDERS)


class BrandingForm(PortalForm):
    """The sender name, colour, footer and language of a tenant's emails."""

    sender_name = TextField(
        lazy_gettext("Sender name"),
        [max_length(100)],
        description=lazy_gettext("Shown as the sender and used in the text."),
    )
    colour = TextField(lazy_gettext("Colour"), [Normalize(branding.parse_colour)])
    footer = TextAreaField(
        lazy_gettext("Footer"),
        [max_length(500)],
        description=lazy_gettext("Plain text. You can use %(placeholders)s.", placeholders=FOOTER_PLACEHOLDERS),
    )
    language = SelectField(
        lazy_gettext("Language"), choices=[SelectChoice(tag, name, {"lang": tag}) for tag, name in LANGUAGES.items()]
    )

    @classmethod
    def showing(cls, tenant: Tenant) -> "BrandingForm":
        """Return the form with the saved branding."""
        data = {
            "sender_name": tenant.sender_name,
            "colour": tenant.brand_color or branding.DEFAULT_COLOUR,
            "footer": tenant.email_footer,
            "language": locale_of(tenant.language).language,
        }
        return cls(formdata=None, data=data)

    def validate_footer(self, field: TextAreaField) -> None:
        """Reject control characters, and placeholders that not every email can fill in."""
        field.data = "\n".join(line.rstrip() for line in (field.data or "").strip().splitlines())
        if has_control_characters(field.data.replace("\n", "")):
            raise ValidationError(gettext("Control characters are not allowed here."))
        unknown = unknown_placeholders("", field.data, COMMON_PLACEHOLDERS)
        if unknown:
            names = {"unknown": f"%%{unknown[0]}%%", "known": FOOTER_PLACEHOLDERS}
            raise ValidationError(gettext("You cannot use %(unknown)s in the footer, only %(known)s.", **names))


class TemplateForm(PortalForm):
    """The subject and body of a template. `based_on` is the version in use when the author started."""

    subject = TextField(
        lazy_gettext("Subject"), [DataRequired(lazy_gettext("Enter a subject.")), max_length(MAX_SUBJECT_LENGTH)]
    )
    format = RadioField(
        lazy_gettext("Format"),
        choices=[
            SelectChoice(TemplateFormat.MARKDOWN.value, "Markdown"),
            SelectChoice(TemplateFormat.HTML.value, "HTML"),
        ],
        validate_choice=True,
        default=TemplateFormat.MARKDOWN,
    )
    body = TextAreaField(lazy_gettext("Body"), [DataRequired(lazy_gettext("Enter a body."))])
    based_on = HiddenField()
    accepted = HiddenField()  # the unknown placeholders that the author was told about

    @classmethod
    def showing(cls, source: TemplateSource, based_on: UUID | None) -> "TemplateForm":
        """Return the form with this template."""
        values = {"subject": source.subject, "format": source.format, "body": source.body}
        return cls(formdata=None, data=values | {"based_on": based_on or ""})

    def validate_body(self, field: TextAreaField) -> None:
        """Normalise line ends and reject control characters and a body that is too long."""
        field.data = field.data.replace("\r\n", "\n")
        if has_control_characters(field.data.replace("\n", "").replace("\t", "")):
            raise ValidationError(gettext("Control characters are not allowed here."))
        max_length = MAX_BODY_LENGTH if self.format.data == TemplateFormat.HTML else MAX_MARKDOWN_LENGTH
        if len(field.data.encode()) > max_length:
            raise ValidationError(gettext("This is too long: use at most %(most)s kB.", most=max_length // 1000))

    def entered(self) -> TemplateSource:
        """Return the template, once the form is valid."""
        return TemplateSource(TemplateFormat(self.format.data), self.subject.data, self.body.data)

    def confirms(self, unknown: Sequence[str]) -> bool:
        """Return whether the author was told about these unknown placeholders, and from now on takes them as told."""
        told, self.accepted.data = set((self.accepted.data or "").split()), " ".join(unknown)
        return told >= set(unknown)

    def based_on_version(self) -> UUID | None:
        """Return the id of the version that the author started from; None means the default.

        For an invalid value it is an id that no version has.
        """
        try:
            return UUID(self.based_on.data) if self.based_on.data else None
        except ValueError:
            return UUID(int=0)
