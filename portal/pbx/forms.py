"""Forms for API keys."""

from datetime import timedelta

from flask_babel import gettext, lazy_gettext
from wtforms import BooleanField, SelectField, ValidationError
from wtforms.validators import DataRequired, Optional

from portal.database import clock
from portal.web.forms import DayField, PortalForm, TextField, max_length
from portal.web.i18n import to_translate

LATEST_TIME_ZONE = timedelta(hours=12)  # behind UTC: where a day ends last
MAX_EXPIRY_YEAR = 2100
OVERLAP_HOURS = {
    "1": to_translate("1 hour"),
    "24": to_translate("24 hours"),
    "168": to_translate("7 days"),
    "720": to_translate("30 days"),
}


class ExpiryDateField(DayField):
    """A day in the future, or none."""

    def post_validate(self, form: PortalForm, validation_stopped: bool) -> None:  # noqa: ARG002 (WTForms' signature)
        """Reject a day that is over everywhere in the world."""
        if self.data and self.data < (clock.now() - LATEST_TIME_ZONE).date():
            raise ValidationError(gettext("This day is over. Choose a later one."))
        if self.data and self.data.year > MAX_EXPIRY_YEAR:
            raise ValidationError(gettext("Choose a day before the end of %(year)s.", year=MAX_EXPIRY_YEAR))


class KeyForm(PortalForm):
    """A new key's name and expiry date, and whether its requests must be signed."""

    name = TextField(
        lazy_gettext("Name"),
        [DataRequired(lazy_gettext("Enter a name for the key.")), max_length(60)],
        description=lazy_gettext("The PBX that uses it, for example Main PBX."),
    )
    expires_on = ExpiryDateField(
        lazy_gettext("Expiry date"),
        [Optional()],
        description=lazy_gettext("The key is valid until the end of this day."),
    )
    signed = BooleanField(
        lazy_gettext("Require a signature"),
        description=lazy_gettext(
            "You get a signing secret with the key. Requests that it did not sign (Standard Webhooks) are rejected."
        ),
    )


class OverlapForm(PortalForm):
    """How long an old key or secret stays valid beside the new one."""

    hours = SelectField(
        choices=list(OVERLAP_HOURS),
        invalid_choice_message=lazy_gettext("Send one of these: %(choices)s.", choices=", ".join(OVERLAP_HOURS)),
    )

    @property
    def overlap(self) -> timedelta:
        """The time for which both are valid."""
        return timedelta(hours=int(self.hours.data))


class RotationForm(OverlapForm):
    """The overlap of an old and a new key, and the expiry date of the new one."""

    expires_on = ExpiryDateField(lazy_gettext("Expiry date of the new key"), [Optional()])
