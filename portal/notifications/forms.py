"""The forms of a tenant's recipients, of its limits to mails at once, and of a mail's template."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from wtforms import HiddenField, RadioField, SelectMultipleField, TextAreaField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import InputRequired, Length

from portal.errors import Refusal
from portal.forms import CheckedBy, DayField, PortalForm, TextField, address, has_control_characters
from portal.notifications import recipients
from portal.notifications.kinds import KINDS
from portal.notifications.models import LARGEST_BODY, LONGEST_SUBJECT
from portal.notifications.storm_limits import MOST_MAILS, MOST_MINUTES
from portal.notifications.wording import Format, Wording
from portal.tenants.models import Tenant


class RecipientsForm(PortalForm):
    """The tenant's "Emails of Recipients"."""

    recipients = TextAreaField("Emails of Recipients", description="Separated by semicolons, commas or new lines.")
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

    address = TextField("Add a recipient", [InputRequired("Enter an e-mail address."), CheckedBy(address)])


class EventsForm(PortalForm):
    """Which events a recipient gets."""

    event = SelectMultipleField("Events", choices=list(KINDS))


class PauseForm(PortalForm):
    """Until which day a recipient gets nothing: from tomorrow on, for a year at most."""

    until = DayField("Until", [InputRequired("Choose the day on which the pause ends.")])

    def __init__(self, zone: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        today = datetime.now(ZoneInfo(zone)).date()
        self.first, self.last = today + timedelta(days=1), today + timedelta(days=366)

    def validate_until(self, field: DayField) -> None:
        """Refuse a day that has begun, and one that is far away."""
        chosen: date | None = field.data
        if chosen and not self.first <= chosen <= self.last:
            raise ValidationError("Choose a day from tomorrow on, within a year.")


def number_of(things: str, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from 1 to `most`.

    It raises ValueError, with a sentence that says what is wrong.
    """

    def read(text: str) -> int:
        # A number of more digits than it may have is none: int() would take its time over a million of them.
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise ValueError(f"Enter a number of {things} from 1 to {most:,}.")
        return int(text)

    return read


class StormForm(PortalForm):
    """After how many mails in how many minutes further ones are held."""

    limit = TextField("Mails", [InputRequired("Enter a number of mails."), CheckedBy(number_of("mails", MOST_MAILS))])
    minutes = TextField(
        "Minutes", [InputRequired("Enter a number of minutes."), CheckedBy(number_of("minutes", MOST_MINUTES))]
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
        "Subject",
        [InputRequired("Enter a subject."), Length(max=LONGEST_SUBJECT, message="Use at most %(max)d characters.")],
    )
    format = RadioField(
        "Format",
        choices=[SelectChoice(Format.MARKDOWN.value, "Markdown"), SelectChoice(Format.HTML.value, "HTML")],
        validate_choice=True,
        default=Format.MARKDOWN,
    )
    body = TextAreaField("Body", [InputRequired("Enter a body.")])
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
            raise ValidationError("Control characters are not allowed here.")
        if len(field.data.encode()) > LARGEST_BODY:
            raise ValidationError(f"This is too long: use at most {LARGEST_BODY // 1000} kB.")

    def entered(self) -> Wording:
        """Return the words, once the form is valid."""
        return Wording(Format(self.format.data), self.subject.data, self.body.data)

    def began_with(self) -> UUID | None:
        """Return the version that the author began with, None for the default; a UUID of nobody for nonsense."""
        try:
            return UUID(self.based_on.data) if self.based_on.data else None
        except ValueError:
            return UUID(int=0)
