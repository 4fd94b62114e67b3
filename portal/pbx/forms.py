"""The forms of a PBX's key."""

from datetime import UTC, datetime, timedelta

from wtforms import BooleanField, SelectField, ValidationError
from wtforms.validators import InputRequired, Length, Optional

from portal.forms import DayField, PortalForm, TextField

EARTH = timedelta(hours=12)  # behind UTC, in the zone where a day ends last
LAST_YEAR = 2100
OVERLAPS = {"1": "1 hour", "24": "24 hours", "168": "7 days", "720": "30 days"}


class LastDayField(DayField):
    """A day in the future, or none."""

    def post_validate(self, form: PortalForm, validation_stopped: bool) -> None:  # noqa: ARG002 (WTForms' signature)
        """Refuse a day that is over everywhere."""
        if self.data and self.data < (datetime.now(UTC) - EARTH).date():
            raise ValidationError("This day is over. Choose a later one.")
        if self.data and self.data.year > LAST_YEAR:
            raise ValidationError(f"Choose a day before the end of {LAST_YEAR}.")


class KeyForm(PortalForm):
    """A key's name and end, and whether it accepts signed calls only."""

    name = TextField(
        "Name",
        [InputRequired("Enter a name for the key."), Length(max=60, message="Use at most 60 characters.")],
        description="Which PBX has it, like Main PBX.",
    )
    last_day = LastDayField("Last day", [Optional()], description="From the next day on the key is refused.")
    signed = BooleanField(
        "Require a signature",
        description="A signing secret comes with the key. Calls that it did not sign (Standard Webhooks) are refused.",
    )


class OverlapForm(PortalForm):
    """How long the old one works beside the new one."""

    hours = SelectField(choices=list(OVERLAPS), invalid_choice_message=f"Send one of these: {', '.join(OVERLAPS)}.")

    @property
    def overlap(self) -> timedelta:
        """The time for which both work."""
        return timedelta(hours=int(self.hours.data))


class RotationForm(OverlapForm):
    """The same for a key, and the last day of its successor."""

    last_day = LastDayField("Last day of the new key", [Optional()])
