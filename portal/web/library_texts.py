"""The texts of WTForms and Flask-Security, in the portal's words and in its catalogues.

Both libraries bring translations, some of them wrong, informal or missing. They are not used.
"""

from collections.abc import Mapping
from typing import Any, Final

from portal.web.i18n import catalog, current_language, to_translate

LIBRARY_TEXTS: Final[Mapping[str, str]] = {
    # WTForms
    "This field is required.": to_translate("This field is required."),
    "Not a valid choice.": to_translate("Choose one of the options."),
    "Invalid Choice: could not coerce.": to_translate("Choose one of the options."),
    "Not a valid date value.": to_translate("Enter a date like 2027-01-31."),
    "Not a valid datetime value.": to_translate("Enter a date and a time like 2027-01-31 14:30."),
    # Flask-Security: labels
    "Email Address": to_translate("Email address"),
    "Password": to_translate("Password"),
    "Remember Me": to_translate("Stay signed in"),
    "New Password": to_translate("New password"),
    "Retype Password": to_translate("Repeat the password"),
    "Authentication Code": to_translate("Code from the app"),
    "Recovery Code": to_translate("Recovery code"),
    # Flask-Security: signing in
    "You must sign in to view this resource.": to_translate("Please sign in first."),
    "Authentication failed - identity or password/passcode invalid": to_translate(
        "The email address or the password is incorrect."
    ),
    "You currently do not have permissions to access this page": to_translate("Sign in with your password first."),
    "Invalid code": to_translate("This code is incorrect or was already used."),
    "Recovery code invalid": to_translate("This code is incorrect or was already used."),
    "Your code has been confirmed": to_translate("You are signed in."),
    "Reauthentication successful": to_translate("Thank you. You can continue."),
    "Email not provided": to_translate("Enter your email address."),
    "Invalid email address": to_translate("Enter a valid email address."),
    "Password not provided": to_translate("Enter the password."),
    "Invalid password": to_translate("The password is incorrect."),
    "Value entered is not valid for the field": to_translate("Enter a text."),
    "Redirections outside the domain are forbidden": to_translate("This link leads to another site."),
    # Flask-Security: changing or resetting a password
    "Passwords do not match": to_translate("The passwords do not match."),
    "Your new password must be different than your previous password.": to_translate(
        "Choose a password that differs from the current one."
    ),
    "You successfully changed your password.": to_translate("Your password has been changed."),
    "You successfully reset your password. Please authenticate using your new password.": to_translate(
        "Your password has been changed. Sign in with the new one."
    ),
    "Instructions to reset your password have been sent to %(email)s.": to_translate(
        "If %(email)s has an account, it will receive an email with a link."
    ),
    "You did not reset your password within %(within)s. ": to_translate(
        "This link has expired: it was valid for %(within)s. Request a new one."
    ),
    "Invalid reset password token.": to_translate("This link is not valid or was already used. Request a new one."),
    "Password reset instructions": to_translate("Choose a new password"),
    "Your password has been reset": to_translate("Your password has been changed"),
    "Your password has been changed": to_translate("Your password has been changed"),
}


def library_text(text: str, **variables: Any) -> str:
    """Return a library's text in the language of this request; one that the portal does not know as it is."""
    translated = catalog(current_language()).gettext(LIBRARY_TEXTS.get(text, text))
    return translated % variables if variables else translated


class FormTexts:
    """What WTForms asks for translations."""

    def gettext(self, text: str) -> str:
        """Return the text in the language of this request."""
        return library_text(text)

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        """Return the singular or the plural in the language of this request."""
        return library_text(singular if number == 1 else plural)
