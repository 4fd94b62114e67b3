"""The emails to accounts: links to confirm something, and notices about what has changed, in the account's language."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from babel.dates import format_timedelta
from flask import current_app, render_template
from flask_babel import force_locale, gettext

from portal import config
from portal.accounts.models import Account
from portal.config import PRODUCT
from portal.web.filters import current_locale
from portal.web.i18n import current_language, to_translate

RESET_INSTRUCTIONS: Final = "reset_instructions"
PASSWORD_CHANGED: Final = "password_changed"  # noqa: S105 (the key of a message)
TWO_FACTOR_ON: Final = "two_factor_on"
TWO_FACTOR_OFF: Final = "two_factor_off"
TWO_FACTOR_RESET: Final = "two_factor_reset"
NEW_RECOVERY_CODES: Final = "new_recovery_codes"
EMAIL_CHANGED: Final = "email_changed"
CONFIRM_OLD_EMAIL: Final = "confirm_old_email"
CONFIRM_NEW_EMAIL: Final = "confirm_new_email"
INVITATION: Final = "invitation"  # and a role

CHOOSE_PASSWORD: Final = to_translate("Choose a new password")
PASSWORD_ADVICE: Final = to_translate(
    "If it was not you, choose a new password immediately and tell your system administrator:"
)
VALID_FOR: Final = to_translate("The link is valid for %(time)s.")


@dataclass(frozen=True, slots=True)
class AccountMessage:
    """An email to an account: texts before and after a link. Without a link of its own it leads to a new password."""

    subject: str
    texts: tuple[str, ...]
    link_text: str = CHOOSE_PASSWORD
    closing: tuple[str, ...] = ()


def _notice(subject: str, text: str) -> AccountMessage:
    return AccountMessage(subject, (text, PASSWORD_ADVICE))


def _invitation(text: str) -> AccountMessage:
    ignore = to_translate("The invitation is for %(email)s. If you do not know who sent it, ignore this email.")
    return AccountMessage(
        to_translate("Invitation to the %(product)s"), (text,), to_translate("View the invitation"), (VALID_FOR, ignore)
    )


MESSAGES: Final[Mapping[str, AccountMessage]] = {
    RESET_INSTRUCTIONS: AccountMessage(
        CHOOSE_PASSWORD,
        (to_translate("Someone, probably you, requested a new password for %(email)s in the %(product)s."),),
        CHOOSE_PASSWORD,
        (VALID_FOR, to_translate("If it was not you, ignore this email. Your password stays the same.")),
    ),
    PASSWORD_CHANGED: _notice(
        to_translate("Your password has been changed"),
        to_translate(
            "The password of %(email)s in the %(product)s has just been changed. "
            "All other sessions have been signed out."
        ),
    ),
    TWO_FACTOR_ON: _notice(
        to_translate("Two-factor authentication has been set up"),
        to_translate("An authenticator app has just been set up for %(email)s in the %(product)s."),
    ),
    TWO_FACTOR_OFF: _notice(
        to_translate("Two-factor authentication has been turned off"),
        to_translate("Two-factor authentication of %(email)s in the %(product)s has just been turned off."),
    ),
    TWO_FACTOR_RESET: _notice(
        to_translate("Two-factor authentication has been turned off"),
        to_translate(
            "An administrator has just turned off two-factor authentication of %(email)s in the %(product)s, "
            "for example because you lost your phone. Sign in with your password, then set it up again."
        ),
    ),
    NEW_RECOVERY_CODES: _notice(
        to_translate("New recovery codes have been created"),
        to_translate(
            "New recovery codes for %(email)s in the %(product)s have just been created. The old ones no longer work."
        ),
    ),
    EMAIL_CHANGED: AccountMessage(
        to_translate("Your email address has been changed"),
        (
            to_translate(
                "The email address of your account in the %(product)s has just been changed from %(old)s to %(new)s. "
                "All sessions have been signed out. Sign in with the new address."
            ),
            to_translate("If it was not you, tell your system administrator immediately."),
        ),
        to_translate("Sign in"),
    ),
    CONFIRM_OLD_EMAIL: AccountMessage(
        to_translate("Confirm your new email address"),
        (
            to_translate(
                "Someone, probably you, wants to change the email address of your account in the %(product)s "
                "from %(old)s to %(new)s. It changes when both addresses are confirmed."
            ),
        ),
        to_translate("Confirm the change"),
        (
            VALID_FOR,
            to_translate(
                "If it was not you, do not confirm it: someone knows your password. "
                "Choose a new one, and tell your system administrator."
            ),
        ),
    ),
    CONFIRM_NEW_EMAIL: AccountMessage(
        to_translate("Confirm your new email address"),
        (
            to_translate(
                "Someone, probably you, wants to use %(new)s as the email address of an account in the %(product)s."
            ),
        ),
        to_translate("Confirm the change"),
        (VALID_FOR, to_translate("If it was not you, ignore this email.")),
    ),
    f"{INVITATION}.administrator": _invitation(
        to_translate("%(who)s invites you to administer %(tenant)s in the %(product)s.")
    ),
    f"{INVITATION}.viewer": _invitation(
        to_translate("%(who)s invites you to view the overview and the delivery log of %(tenant)s in the %(product)s.")
    ),
    f"{INVITATION}.system_administrator": _invitation(
        to_translate("%(who)s invites you to administer the %(product)s with all its tenants.")
    ),
}


def portal_link(endpoint: str, **values: Any) -> str:
    """Return the URL of a page under PORTAL_URL, whatever host name the request has, or without a request."""
    return f"{config.current().portal_url}{current_app.url_map.bind('portal').build(endpoint, values)}"


def send(message: str, account: Account, *, to: str | None = None, language: str | None = None, **values: Any) -> None:
    """Send one of the `MESSAGES` to an account, in the background.

    Args:
        message: its key.
        account: whose language is used.
        language: the one of an account that has not chosen any. Default: that of this request.
        to: another email address than the account's.
        values: for the texts; `link` is a URL, and `valid_for` says how long it is valid.
    """
    mail_util = current_app.extensions["security"]._mail_util
    mail_util.send_mail(message, "", to or account.email, "", None, None, user=account, language=language, **values)


def render(message: str, account: Account, *, language: str | None = None, **values: Any) -> tuple[str, str, str]:
    """Return the subject, the text and the HTML of an email to an account: see `send`."""
    content = MESSAGES[message]
    if token := values.pop("reset_token", None):
        link, valid_for = portal_link("security.reset_password", token=token), _reset_time()
    else:
        default = "security.login" if message == EMAIL_CHANGED else "security.forgot_password"
        link, valid_for = values.get("link") or portal_link(default), values.get("valid_for", timedelta())
    with force_locale(account.language or language or current_language()):
        time = format_timedelta(valid_for, threshold=1.5, locale=current_locale())
        values = {"email": account.email, "product": PRODUCT, "time": time, **values}
        shown = {
            "texts": [gettext(text) % values for text in content.texts],
            "link": link,
            "link_text": gettext(content.link_text),
            "closing": [gettext(text) % values for text in content.closing],
        }
        text, html = (render_template(f"accounts/email/message.{kind}", **shown) for kind in ("txt", "html"))
        return gettext(content.subject) % values, text, html


def _reset_time() -> timedelta:
    valid_for: timedelta = current_app.config["SECURITY_RESET_PASSWORD_WITHIN"]
    return valid_for
