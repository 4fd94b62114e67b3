"""The forms of a tenant's recipients and storm limits."""

import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel.numbers import format_decimal
from flask_babel import gettext, lazy_gettext, lazy_pgettext
from wtforms import (
    HiddenField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
    TimeField,
    ValidationError,
)
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired, InputRequired, Optional

from portal.database import clock
from portal.errors import Refusal
from portal.events.fields import clean_text
from portal.events.types import EVENT_TYPES
from portal.notifications import recipients
from portal.notifications.decision import DAYS_OF_WEEK, QuietHours, RecipientRules
from portal.notifications.models import Recipient
from portal.notifications.settings import MAX_STORM_EMAILS, MAX_STORM_MINUTES
from portal.tenants.models import Tenant
from portal.web.filters import current_locale
from portal.web.forms import DayField, Normalize, PortalForm, TextField, max_length
from portal.web.i18n import to_translate
from portal.web.pasted_emails import parse_email

MAX_QUEUES_LENGTH: Final = 500
QUEUE_SEPARATOR: Final = re.compile("[,;，；、\n]+")  # noqa: RUF001 (as input methods type them)


class ClockField(TimeField):
    """A time of day."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Read the submitted value. Some browsers add seconds."""
        try:
            super().process_formdata([value[:5] for value in valuelist])
        except ValueError:
            raise ValueError(gettext("Enter a time like 22:00.")) from None


SEPARATORS = lazy_gettext("Separated by commas, semicolons, spaces or new lines.")


class RecipientsForm(PortalForm):
    """The tenant's "Emails of Recipients"."""

    recipients = TextAreaField(lazy_gettext("Emails of Recipients"), description=SEPARATORS)
    recipients_based_on = HiddenField()  # the recipients when the page was opened, as `recipients.version` writes them
    parsed: list[str]

    @classmethod
    def showing(cls, emails: Sequence[str]) -> "RecipientsForm":
        """Return the form with these email addresses."""
        values = {"recipients": "\n".join(emails), "recipients_based_on": recipients.version(emails)}
        return cls(formdata=None, data=values)

    @property
    def is_empty(self) -> bool:
        """Whether there were no recipients and none was entered."""
        return not (self.recipients.data or "").strip() and not self.recipients_based_on.data

    def validate_recipients(self, field: TextAreaField) -> None:
        """Parse the email addresses."""
        self.parsed = [] if self.is_empty else _parse_emails(field)


class RecipientForm(PortalForm):
    """Recipients to add, one or several."""

    email = TextField(
        lazy_gettext("Add recipients"),
        [DataRequired(lazy_gettext("Enter an email address."))],
        description=SEPARATORS,
    )
    parsed: list[str]

    def validate_email(self, field: TextField) -> None:
        """Parse the email addresses."""
        self.parsed = _parse_emails(field)


def _parse_emails(field: StringField) -> list[str]:
    parsed = recipients.parse_emails(field.data or "")
    if isinstance(parsed, Refusal):
        raise ValidationError(parsed.text)
    return parsed


class EventsForm(PortalForm):
    """The events that a recipient gets."""

    event = SelectMultipleField(lazy_gettext("Events"), choices=list(EVENT_TYPES))


class RulesForm(PortalForm):
    """What a recipient gets: events, queues, quiet hours. `rules` are set once the form is valid."""

    event = SelectMultipleField(lazy_gettext("Events"), choices=list(EVENT_TYPES))
    queues = TextField(
        lazy_gettext("Queues"),
        [max_length(MAX_QUEUES_LENGTH)],
        description=lazy_gettext("Numbers or names, separated by commas. Leave it empty for all queues."),
    )
    quiet_day = SelectMultipleField(
        lazy_gettext("Days"), choices=[SelectChoice(day) for day in DAYS_OF_WEEK], coerce=int
    )
    quiet_from = ClockField(lazy_pgettext("time", "From"), [Optional()])
    quiet_until = ClockField(lazy_pgettext("time", "Until"), [Optional()])
    urgent_event = SelectMultipleField(lazy_gettext("Urgent events"), choices=list(EVENT_TYPES))
    rules: RecipientRules

    @classmethod
    def showing(cls, recipient: Recipient) -> "RulesForm":
        """Return the form with the rules of a recipient."""
        included = [event_type for event_type in EVENT_TYPES if event_type not in recipient.excluded_event_types]
        values = {
            "event": included,
            "queues": ", ".join(recipient.queues),
            "quiet_day": recipient.quiet_days,
            "quiet_from": recipient.quiet_from,
            "quiet_until": recipient.quiet_until,
            "urgent_event": recipient.urgent_event_types,
        }
        return cls(formdata=None, data=values)

    def validate_for(self, recipient: Recipient) -> bool:
        """Return whether the rules are valid for a recipient: quiet hours have days and times, and end sometime."""
        is_valid: bool = self.validate()
        begin, end, days = self.quiet_from.data, self.quiet_until.data, frozenset(self.quiet_day.data or ())
        entered = [begin is not None, end is not None, bool(days)]
        quiet = QuietHours(days, begin, end) if all(entered) else None
        if any(entered) and quiet is None and is_valid:
            self.quiet_from.errors = [gettext("Quiet hours need days and both times. For none, clear all of them.")]
            return False
        if quiet and quiet.never_ends:
            self.quiet_from.errors = [gettext("These quiet hours would never end. Leave out a day or some hours.")]
            return False
        queues = list(dict.fromkeys(filter(None, map(clean_text, QUEUE_SEPARATOR.split(self.queues.data or "")))))
        self.rules = RecipientRules(recipient.email, queues, quiet, self.urgent_event.data if quiet else [])
        return is_valid


class OwnPauseForm(PortalForm):
    """How long a recipient wants no emails. The values are days."""

    days = SelectField(
        lazy_gettext("No emails"),
        choices=[
            SelectChoice("1", lazy_gettext("for one day")),
            SelectChoice("7", lazy_gettext("for one week")),
            SelectChoice("", lazy_gettext("until I resume them")),
        ],
    )


class LinkForm(PortalForm):
    """The email address to which a recipient wants a link."""

    email = TextField(
        lazy_gettext("Your email address"),
        [DataRequired(lazy_gettext("Enter an email address.")), Normalize(parse_email)],
    )


class PauseForm(PortalForm):
    """The day until which a recipient gets nothing: between tomorrow and a year from now."""

    until = DayField(lazy_gettext("Until"), [InputRequired(lazy_gettext("Choose the day on which the pause ends."))])

    def __init__(self, zone: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        today = clock.now().astimezone(ZoneInfo(zone)).date()
        self.first, self.last = today + timedelta(days=1), today + timedelta(days=366)

    def validate_until(self, field: DayField) -> None:
        """Reject a day that is not between tomorrow and a year from now."""
        day: date | None = field.data
        if day and not self.first <= day <= self.last:
            raise ValidationError(gettext("Choose a day between tomorrow and a year from now."))


def number_up_to(maximum: int, error: str) -> Callable[[str], int]:
    """Return a function that parses a whole number from 1 to `maximum`.

    It raises ValueError with the message `error`, which may contain `%(most)s` for the maximum.
    """

    def parse(text: str) -> int:
        # The length is checked first because int() is slow for a million digits.
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(maximum))
        if not is_number or not 1 <= int(text) <= maximum:
            raise ValueError(gettext(error, most=format_decimal(maximum, locale=current_locale())))
        return int(text)

    return parse


_email_count = number_up_to(MAX_STORM_EMAILS, to_translate("Enter a number of emails from 1 to %(most)s."))
_minute_count = number_up_to(MAX_STORM_MINUTES, to_translate("Enter a number of minutes from 1 to %(most)s."))


class StormLimitForm(PortalForm):
    """The number of emails in a number of minutes, after which further ones are held."""

    limit = TextField(
        lazy_gettext("Emails"), [DataRequired(lazy_gettext("Enter a number of emails.")), Normalize(_email_count)]
    )
    minutes = TextField(
        lazy_gettext("Minutes"), [DataRequired(lazy_gettext("Enter a number of minutes.")), Normalize(_minute_count)]
    )

    @classmethod
    def showing(cls, tenant: Tenant) -> "StormLimitForm":
        """Return the form with the tenant's limits."""
        return cls(formdata=None, data={"limit": tenant.storm_limit, "minutes": tenant.storm_minutes})

    def entered(self) -> tuple[int, int]:
        """Return the number of emails and the number of minutes, once the form is valid."""
        return int(self.limit.data), int(self.minutes.data)
