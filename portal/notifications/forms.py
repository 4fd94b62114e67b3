"""The forms of a tenant's recipients, of its limits to mails at once, and of a mail's template."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from babel.numbers import format_decimal
from flask_babel import gettext, lazy_gettext
from wtforms import HiddenField, RadioField, SelectMultipleField, TextAreaField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import InputRequired, Length

from portal.errors import Refusal
from portal.forms import CheckedBy, DayField, PortalForm, TextField, address, has_control_characters
from portal.languages import to_translate
from portal.notifications import recipients
from portal.notifications.kinds import KINDS
from portal.notifications.models import LARGEST_BODY, LARGEST_MARKDOWN, LONGEST_SUBJECT
from portal.notifications.storm_limits import MOST_MAILS, MOST_MINUTES
from portal.notifications.wording import Format, Wording
from portal.tenants.models import Tenant
from portal.ui import readers_locale


class RecipientsForm(PortalForm):
    """The tenant's "Emails of Recipients"."""

    recipients = TextAreaField(
        lazy_gettext("Emails of Recipients"), description=lazy_gettext("Separated by semicolons, commas or new lines.")
    )
    parsed: list[str]

    @classmethod
    def showing(cls, addresses: Sequence[str]) -> "RecipientsForm":
        """Return the form with these addresses."""
        return cls(formdata=None, data={"recipients": "\n".join(addresses)})

    def validate_recipients(self, field: TextAreaField) -> None:
        """Read the addresses, or say what is wrong with them."""
        parsed = recipients.parse(field.data or "")
        if isinstance(parsed, Refusal):
            raise ValidationError(parsed.text)
        self.parsed = parsed


class RecipientForm(PortalForm):
    """One more recipient."""

    address = TextField(
        lazy_gettext("Add a recipient"), [InputRequired(lazy_gettext("Enter an e-mail address.")), CheckedBy(address)]
    )


class EventsForm(PortalForm):
    """Which events a recipient gets."""

    event = SelectMultipleField(lazy_gettext("Events"), choices=list(KINDS))


class PauseForm(PortalForm):
    """Until which day a recipient gets nothing: from tomorrow on, for a year at most."""

    until = DayField(lazy_gettext("Until"), [InputRequired(lazy_gettext("Choose the day on which the pause ends."))])

    def __init__(self, zone: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        today = datetime.now(ZoneInfo(zone)).date()
        self.first, self.last = today + timedelta(days=1), today + timedelta(days=366)

    def validate_until(self, field: DayField) -> None:
        """Refuse a day that has begun, and one that is far away."""
        chosen: date | None = field.data
        if chosen and not self.first <= chosen <= self.last:
            raise ValidationError(gettext("Choose a day from tomorrow on, within a year."))


def number_up_to(most: int, wrong: str) -> Callable[[str], int]:
    """Return a function that reads a whole number from 1 to `most`.

    It raises ValueError with the sentence `wrong`, which names `%(most)s`.
    """

    def read(text: str) -> int:
        # A number of more digits than it may have is none: int() would take its time over a million of them.
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise ValueError(gettext(wrong, most=format_decimal(most, locale=readers_locale())))
        return int(text)

    return read


_mails = number_up_to(MOST_MAILS, to_translate("Enter a number of mails from 1 to %(most)s."))
_minutes = number_up_to(MOST_MINUTES, to_translate("Enter a number of minutes from 1 to %(most)s."))


class StormForm(PortalForm):
    """After how many mails in how many minutes further ones are held."""

    limit = TextField(
        lazy_gettext("Mails"), [InputRequired(lazy_gettext("Enter a number of mails.")), CheckedBy(_mails)]
    )
    minutes = TextField(
        lazy_gettext("Minutes"), [InputRequired(lazy_gettext("Enter a number of minutes.")), CheckedBy(_minutes)]
    )

    @classmethod
    def showing(cls, tenant: Tenant) -> "StormForm":
        """Return the form with the tenant's limits."""
        return cls(formdata=None, data={"limit": tenant.storm_limit, "minutes": tenant.storm_minutes})

    def entered(self) -> tuple[int, int]:
        """Return the number of mails and the number of minutes, once the form is valid."""
        return int(self.limit.data), int(self.minutes.data)


class TemplateForm(PortalForm):
    """Subject and body of an event kind's mail. `based_on` is the version in use when the author began."""

    subject = TextField(
        lazy_gettext("Subject"),
        [
            InputRequired(lazy_gettext("Enter a subject.")),
            Length(max=LONGEST_SUBJECT, message=lazy_gettext("Use at most %(max)d characters.")),
        ],
    )
    format = RadioField(
        lazy_gettext("Format"),
        choices=[SelectChoice(Format.MARKDOWN.value, "Markdown"), SelectChoice(Format.HTML.value, "HTML")],
        validate_choice=True,
        default=Format.MARKDOWN,
    )
    body = TextAreaField(lazy_gettext("Body"), [InputRequired(lazy_gettext("Enter a body."))])
    based_on = HiddenField()

    @classmethod
    def showing(cls, wording: Wording, based_on: UUID | None) -> "TemplateForm":
        """Return the form with these words."""
        values = {"subject": wording.subject, "format": wording.format, "body": wording.body}
        return cls(formdata=None, data=values | {"based_on": based_on or ""})

    def validate_body(self, field: TextAreaField) -> None:
        """Take the browser's line ends out, and say what is wrong with the rest."""
        field.data = field.data.replace("\r\n", "\n")
        if has_control_characters(field.data.replace("\n", "").replace("\t", "")):
            raise ValidationError(gettext("Control characters are not allowed here."))
        most = LARGEST_BODY if self.format.data == Format.HTML else LARGEST_MARKDOWN
        if len(field.data.encode()) > most:
            raise ValidationError(gettext("This is too long: use at most %(most)s kB.", most=most // 1000))

    def entered(self) -> Wording:
        """Return the words, once the form is valid."""
        return Wording(Format(self.format.data), self.subject.data, self.body.data)

    def began_with(self) -> UUID | None:
        """Return the version that the author began with, None for the default; a UUID of nobody for nonsense."""
        try:
            return UUID(self.based_on.data) if self.based_on.data else None
        except ValueError:
            return UUID(int=0)
