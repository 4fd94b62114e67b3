"""The forms of an account."""

from typing import Any
from uuid import uuid4

from flask_babel import lazy_gettext
from flask_security import ForgotPasswordForm, TwoFactorRescueForm
from wtforms import RadioField
from wtforms.validators import DataRequired

from portal.accounts.models import Account
from portal.web.forms import PortalForm, TextField


class GenericForgotPasswordForm(ForgotPasswordForm):
    """Flask-Security's form, which does the same whether or not the address has an account."""

    def validate(self, **kwargs: Any) -> bool:
        """Return whether an address was entered. `user` is its account, or one that is not stored."""
        if not super().validate(**kwargs) and self.email.data:
            self.email.errors = []
            self.user = Account(email=self.email.data, password="", active=True, fs_uniquifier=uuid4().hex)
        return bool(self.email.data) and "csrf_token" not in self.errors


class RescueForm(TwoFactorRescueForm):
    """Flask-Security's list of ways to sign in without the code. It is not shown: a link leads to recovery codes."""

    help_setup = RadioField(choices=[])


class AuthenticatorCodeForm(PortalForm):
    """The code of an authenticator app that is being set up."""

    code = TextField(
        lazy_gettext("Code from the app"),
        validators=[DataRequired(lazy_gettext("Enter the code that the app shows."))],
        render_kw={"autocomplete": "one-time-code", "inputmode": "numeric"},
    )
