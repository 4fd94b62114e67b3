"""The forms of an account."""

from typing import Any
from uuid import uuid4

from flask_babel import gettext, lazy_gettext
from flask_security import ForgotPasswordForm, LoginForm, ResetPasswordForm, TwoFactorRescueForm
from flask_security.utils import get_message
from wtforms import RadioField
from wtforms.validators import DataRequired

from portal.accounts.models import Account
from portal.accounts.service import accepts_password
from portal.web.forms import PortalForm, TextField


class PasswordSignInForm(LoginForm):
    """Flask-Security's form, which accepts the passwords of break-glass accounts only if `SSO_ONLY` is on."""

    def validate(self, **kwargs: Any) -> bool:
        """Return whether the password is correct, and accepted. The errors and the time do not say which was not."""
        if not super().validate(**kwargs):
            return False
        assert isinstance(self.user, Account)
        if accepts_password(self.user):
            return True
        self.user_authenticated = False
        self.user.track_failed_authn("password")
        self.password.errors.append(get_message("INVALID_PASSWORD")[0])
        return False


class NewPasswordForm(ResetPasswordForm):
    """Flask-Security's form behind the link of an email, which may be older than `SSO_ONLY`."""

    def validate(self, **kwargs: Any) -> bool:
        """Return whether the password is set."""
        assert isinstance(self.user, Account)  # else the link is not valid, and the view sends the browser away
        if not accepts_password(self.user):
            self.password.errors = [gettext("Passwords are off. Use single sign-on.")]
            return False
        return bool(super().validate(**kwargs))


class GenericForgotPasswordForm(ForgotPasswordForm):
    """Flask-Security's form, which does the same whether or not the address has an account."""

    def validate(self, **kwargs: Any) -> bool:
        """Return whether an address was entered. `user` is its account, or one that is not stored."""
        is_valid = super().validate(**kwargs) and isinstance(self.user, Account) and accepts_password(self.user)
        if not is_valid and self.email.data:
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
