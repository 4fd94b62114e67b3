"""The forms of a PBX's key."""

from datetime import UTC, datetime, timedelta

from flask_babel import gettext, lazy_gettext
from wtforms import BooleanField, SelectField, ValidationError
from wtforms.validators import InputRequired, Length, Optional

from portal.forms import DayField, PortalForm, TextField
from portal.languages import to_translate

EARTH = timedelta(hours=12)  # behind UTC, in the zone where a day ends last
LAST_YEAR = 2100
OVERLAPS = {
    "1": to_translate("1 hour"),
    "24": to_translate("24 hours"),
    "168": to_translate("7 days"),
    "720": to_translate("30 days"),
}


class LastDayField(DayField):
    """A day in the future, or none."""

    def post_validate(self, form: PortalForm, validation_stopped: bool) -> None:  # noqa: ARG002 (WTForms' signature)
        """Refuse a day that is over everywhere."""
        if self.data and self.data < (datetime.now(UTC) - EARTH).date():
            raise ValidationError(gettext("This day is over. Choose a later one."))
        if self.data and self.data.year > LAST_YEAR:
            raise ValidationError(gettext("Choose a day before the end of %(year)s.", year=LAST_YEAR))


class KeyForm(PortalForm):
    """A key's name and end, and whether it accepts signed calls only."""

    name = TextField(
        lazy_gettext("Name"),
        [
            InputRequired(lazy_gettext("Enter a name for the key.")),
            Length(max=60, message=lazy_gettext("Use at most 60 characters.")),
        ],
        description=lazy_gettext("Which PBX has it, like Main PBX."),
    )
    last_day = LastDayField(
        lazy_gettext("Last day"), [Optional()], description=lazy_gettext("From the next day on the key is refused.")
    )
    signed = BooleanField(
        lazy_gettext("Require a signature"),
        description=lazy_gettext(
            "A signing secret comes with the key. Calls that it did not sign (Standard Webhooks) are refused."
        ),
    )


class OverlapForm(PortalForm):
    """How long the old one works beside the new one."""

    hours = SelectField(
        choices=list(OVERLAPS),
        invalid_choice_message=lazy_gettext("Send one of these: %(choices)s.", choices=", ".join(OVERLAPS)),
    )

    @property
    def overlap(self) -> timedelta:
        """The time for which both work."""
        return timedelta(hours=int(self.hours.data))


class RotationForm(OverlapForm):
    """The same for a key, and the last day of its successor."""

    last_day = LastDayField(lazy_gettext("Last day of the new key"), [Optional()])
