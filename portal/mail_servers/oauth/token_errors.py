"""What a token server's error means: decided by `error` (RFC 6749, section 5.2), shown with Microsoft's number."""

import re
from typing import Final

from portal.mail_servers.oauth.identity_providers import IdentityProvider
from portal.mail_servers.smtp.connect import settings_failure
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, SmtpReply, Stage
from portal.web.i18n import to_translate

# RFC 6749, section 4.1.2.1, and RFC 8628, section 3.5. All other errors need a person.
TEMPORARY_ERRORS: Final = ("temporarily_unavailable", "server_error", "slow_down", "internal_failure")
NOT_CONNECTED: Final = to_translate("No mailbox is connected.")
UNREADABLE: Final = to_translate("The stored access cannot be decrypted.")
BUSY_REFRESHING: Final = to_translate("Another process is getting an access token.")
_UNREACHABLE: Final = {
    "microsoft": to_translate("Microsoft's token server is not available."),
    "google": to_translate("Google's token server is not available."),
}
_INVALID: Final = {
    "microsoft": to_translate("Microsoft's token server sent an unusable response."),
    "google": to_translate("Google's token server sent an unusable response."),
}


def rejection(provider: IdentityProvider, error: str, description: str) -> SmtpFailure:
    """Return the failure for an error of the token server: "Microsoft rejected access: invalid_client (AADSTS7000222)".

    Of the description only the number is shown, and Google's subtype: the rest names accounts and apps.
    """
    name = error if re.fullmatch(r"[\w.-]{1,60}", error, re.ASCII) else "unknown error"
    number = re.search(r"\bAADSTS\d{4,9}\b|\binvalid_rapt\b", description[:2000])
    text = f"{provider.label} rejected access: {name}" + (f" ({number[0]})." if number else ".")
    if error in TEMPORARY_ERRORS:
        return temporary_failure(text)
    return settings_failure(Stage.TOKEN, text)


def unreachable(provider: IdentityProvider) -> SmtpFailure:
    """Return the failure for a token server that does not respond or has an error of its own."""
    return temporary_failure(_UNREACHABLE[provider.key])


def invalid_response(provider: IdentityProvider) -> SmtpFailure:
    """Return the failure for a response that is none of a token server."""
    return temporary_failure(_INVALID[provider.key])


def temporary_failure(text: str) -> SmtpFailure:
    """Return a failure that may be over at the next attempt."""
    return SmtpFailure(SmtpReply(ReplyKind.TEMPORARY, Stage.TOKEN, text=text))
