"""The forms of an account."""

import re
import unicodedata
from typing import Any, Final
from uuid import uuid4

from flask_babel import gettext, lazy_gettext
from flask_security import ForgotPasswordForm, LoginForm, ResetPasswordForm, TwoFactorRescueForm
from flask_security.utils import get_message
from wtforms import RadioField
from wtforms.validators import DataRequired

from portal.accounts.models import Account
from portal.accounts.service import accepts_password
from portal.web.forms import Normalize, PortalForm, TextField, max_length, normalize_email

WEB_ADDRESS: Final = re.compile(r"[/:@<>]|\S[.\u3002]\w{2}")  # what mail programs would turn into a link
CHANGES_OF_DIRECTION: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")  # with which a name shows another text


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
        is_found = super().validate(**kwargs) and isinstance(self.user, Account) and accepts_password(self.user)
        has_password = self.user is not None and self.user.password  # an invited account has none yet
        if not (is_found and has_password) and self.email.data:
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


def normalize_name(text: str) -> str:
    """Return a person's name. Raise ValueError for one that would become a link in an invitation to somebody else."""
    # As mail programs read it: other full stops are full stops, and what is not seen is not there.
    seen = "".join(
        character for character in unicodedata.normalize("NFKC", text) if unicodedata.category(character) != "Cf"
    )
    if not seen.strip():
        raise ValueError(gettext("Enter your name."))
    if WEB_ADDRESS.search(seen) or CHANGES_OF_DIRECTION.search(text):
        raise ValueError(gettext("Enter only your name, without a web or email address."))
    return text


def normalize_account_email(text: str) -> str:
    """Return an email address in lower case, as accounts have it. Raise ValueError with a sentence for people."""
    return normalize_email(text).lower()


class NameForm(PortalForm):
    """The name of a person."""

    name = TextField(
        lazy_gettext("Your name"),
        [DataRequired(lazy_gettext("Enter your name.")), max_length(100), Normalize(normalize_name)],
        render_kw={"autocomplete": "name"},
    )


class NewEmailForm(PortalForm):
    """An email address that becomes an account's."""

    email = TextField(
        lazy_gettext("Email address"),
        [DataRequired(lazy_gettext("Enter an email address.")), Normalize(normalize_account_email)],
        render_kw={"autocomplete": "off", "inputmode": "email", "spellcheck": "false", "autocapitalize": "off"},
    )
