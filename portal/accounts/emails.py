"""The emails to accounts about their passwords, in the language of the account."""

from collections.abc import Mapping
from typing import Any, Final

from babel.dates import format_timedelta
from flask import current_app, render_template, url_for
from flask_babel import force_locale, gettext

from portal.accounts.models import Account
from portal.web.filters import current_locale
from portal.web.i18n import current_language, to_translate

RESET_INSTRUCTIONS: Final = "accounts/email/reset_instructions"
CHANGE_NOTICE: Final = "accounts/email/password_changed"
SUBJECTS: Final[Mapping[str, str]] = {
    RESET_INSTRUCTIONS: to_translate("Choose a new password"),
    CHANGE_NOTICE: to_translate("Your password has been changed"),
}


def render(template: str, account: Account, **values: Any) -> tuple[str, str, str]:
    """Return the subject, the text and the HTML of an email to an account.

    An account that uses its browser's language gets it in the language of this request.
    """
    with force_locale(account.language or current_language()):
        values = {
            "account": account,
            "valid_for": format_timedelta(
                current_app.config["SECURITY_RESET_PASSWORD_WITHIN"], locale=current_locale()
            ),
            "forgot_password_url": url_for("security.forgot_password", _external=True),
            **values,
        }
        text, html = (render_template(f"{template}.{kind}", **values) for kind in ("txt", "html"))
        return gettext(SUBJECTS[template]), text, html
