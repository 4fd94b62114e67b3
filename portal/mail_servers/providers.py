"""The "Email Service Providers" and what their mail servers want: one more is one more entry.

Hosts, ports and names of users are those of the providers' own instructions.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from portal.languages import to_translate
from portal.mail_servers.connection import Encryption


class Provider(NamedTuple):
    """A provider of mail servers: its name, the settings that all of its customers share, and what to know.

    `username` is given where it is the same for everybody; `hint` says what user name and password are.
    """

    label: str
    host: str = ""
    port: int = 587
    encryption: Encryption = Encryption.STARTTLS
    username: str = ""
    hint: str = ""


BY_MAILBOX: Final = to_translate("Username: the whole address. Password: the mailbox's.")
BY_APP: Final = to_translate("Username: the whole address. Password: an app password.")
OF_DOMAIN: Final = to_translate("Username and password: SMTP credentials of the sending domain.")

MAILBOXES: Final = {
    "gmail": Provider(
        "Google Gmail",
        "smtp.gmail.com",
        hint=to_translate("Username: the whole address. Password: an app password, which needs 2-Step Verification."),
    ),
    "microsoft365": Provider(
        "Microsoft 365",
        "smtp.office365.com",
        hint=to_translate("Username: the whole address. Authenticated SMTP must be switched on for the mailbox."),
    ),
    "fastmail": Provider("Fastmail", "smtp.fastmail.com", 465, Encryption.TLS, hint=BY_APP),
    "gmx": Provider(
        "GMX",
        "mail.gmx.net",
        hint=to_translate(
            "Username: the whole address. Password: the mailbox's. POP3 and IMAP must be allowed in the mailbox."
        ),
    ),
    "icloud": Provider(
        "iCloud Mail",
        "smtp.mail.me.com",
        hint=to_translate("Username: the whole address. Password: an app password of the Apple Account."),
    ),
    "infomaniak": Provider("Infomaniak", "mail.infomaniak.com", 465, Encryption.TLS, hint=BY_MAILBOX),
    "ionos": Provider(
        "IONOS",
        "smtp.ionos.com",
        hint=to_translate(
            "Username: the whole address. Password: the mailbox's. In Germany the server is smtp.ionos.de."
        ),
    ),
    "ovh": Provider("OVHcloud", "ssl0.ovh.net", 465, Encryption.TLS, hint=BY_MAILBOX),
    "strato": Provider("STRATO", "smtp.strato.de", 465, Encryption.TLS, hint=BY_MAILBOX),
    "yahoo": Provider("Yahoo Mail", "smtp.mail.yahoo.com", 465, Encryption.TLS, hint=BY_APP),
    "zoho": Provider(
        "Zoho Mail",
        "smtp.zoho.com",
        465,
        Encryption.TLS,
        hint=to_translate(
            "Username: the whole address. Accounts in Europe use smtp.zoho.eu; two-factor ones an app password."
        ),
    ),
}
SENDING_SERVICES: Final = {
    "ses": Provider(
        "Amazon SES",
        "email-smtp.us-east-1.amazonaws.com",
        hint=to_translate("Put your region into the server address. Username and password: SES's SMTP credentials."),
    ),
    "brevo": Provider(
        "Brevo",
        "smtp-relay.brevo.com",
        hint=to_translate("Username: the SMTP login. Password: an SMTP key, not an API key."),
    ),
    "mailgun": Provider("Mailgun", "smtp.mailgun.org", hint=OF_DOMAIN),
    "mailgun-eu": Provider("Mailgun (EU)", "smtp.eu.mailgun.org", hint=OF_DOMAIN),
    "mailjet": Provider(
        "Mailjet", "in-v3.mailjet.com", hint=to_translate("Username: the API key. Password: the secret key.")
    ),
    "postmark": Provider(
        "Postmark",
        "smtp.postmarkapp.com",
        hint=to_translate("Username and password: the Server API token, in both fields."),
    ),
    "sendgrid": Provider(
        "SendGrid",
        "smtp.sendgrid.net",
        username="apikey",
        hint=to_translate("Username: the word apikey. Password: an API key."),
    ),
}
GROUPS: Final[Mapping[str, Mapping[str, Provider]]] = {
    to_translate("Any"): {"smtp": Provider(to_translate("Generic SMTP"))},
    to_translate("Mailboxes"): MAILBOXES,
    to_translate("Sending services"): SENDING_SERVICES,
}
PROVIDERS: Final[Mapping[str, Provider]] = {key: each for group in GROUPS.values() for key, each in group.items()}


def provider_of(host: str) -> Provider | None:
    """Return whose mail server a host is, where that is known; Amazon SES has one in each region."""
    name = host.lower()
    if name.startswith("email-smtp.") and name.endswith(".amazonaws.com"):
        return PROVIDERS["ses"]
    return next((each for each in PROVIDERS.values() if each.host == name), None)
