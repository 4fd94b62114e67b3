"""The forms of an account."""

from typing import Any
from uuid import uuid4

from flask_babel import lazy_gettext
from flask_security import ForgotPasswordForm, TwoFactorRescueForm
from wtforms import RadioField
from wtforms.validators import DataRequired

from portal.accounts.models import Account
from portal.forms import PortalForm, TextField


class ForgottenPasswordForm(ForgotPasswordForm):
    """The form that lets a stranger ask for a link. Where there is no account, all is done as if there were one."""

    def validate(self, **kwargs: Any) -> bool:
        """Return whether an address was entered; `user` is its account, or one that is stored nowhere."""
        if not super().validate(**kwargs) and self.email.data:
            self.email.errors = []
            self.user = Account(email=self.email.data, password="", active=True, fs_uniquifier=uuid4().hex)
        return bool(self.email.data)


class RescueForm(TwoFactorRescueForm):
    """Flask-Security's list of ways to go on without the code. It is not shown: a link leads to the recovery codes."""

    help_setup = RadioField(choices=[])


class CodeForm(PortalForm):
    """The code of an authenticator, when it is set up."""

    code = TextField(
        lazy_gettext("Code from the app"),
        validators=[DataRequired(lazy_gettext("Enter the code that the app shows."))],
        render_kw={"autocomplete": "one-time-code", "inputmode": "numeric"},
    )
