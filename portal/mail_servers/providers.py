"""The "Email Service Providers" and what their mail servers want: one more is one more entry.

Hosts, ports and names of users are those of the providers' own instructions.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

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


WHOLE_ADDRESS: Final = "Username: the whole address. Password: the mailbox's."
BY_APP: Final = "Username: the whole address. Password: an app password"

MAILBOXES: Final = {
    "gmail": Provider("Google Gmail", "smtp.gmail.com", hint=f"{BY_APP}, which needs 2-Step Verification."),
    "microsoft365": Provider(
        "Microsoft 365",
        "smtp.office365.com",
        hint="Username: the whole address. Authenticated SMTP must be switched on for the mailbox.",
    ),
    "fastmail": Provider("Fastmail", "smtp.fastmail.com", 465, Encryption.TLS, hint=f"{BY_APP}."),
    "gmx": Provider("GMX", "mail.gmx.net", hint=f"{WHOLE_ADDRESS} POP3 and IMAP must be allowed in the mailbox."),
    "icloud": Provider("iCloud Mail", "smtp.mail.me.com", hint=f"{BY_APP} of the Apple Account."),
    "infomaniak": Provider("Infomaniak", "mail.infomaniak.com", 465, Encryption.TLS, hint=WHOLE_ADDRESS),
    "ionos": Provider("IONOS", "smtp.ionos.com", hint=f"{WHOLE_ADDRESS} In Germany the server is smtp.ionos.de."),
    "ovh": Provider("OVHcloud", "ssl0.ovh.net", 465, Encryption.TLS, hint=WHOLE_ADDRESS),
    "strato": Provider("STRATO", "smtp.strato.de", 465, Encryption.TLS, hint=WHOLE_ADDRESS),
    "yahoo": Provider("Yahoo Mail", "smtp.mail.yahoo.com", 465, Encryption.TLS, hint=f"{BY_APP}."),
    "zoho": Provider(
        "Zoho Mail",
        "smtp.zoho.com",
        465,
        Encryption.TLS,
        hint="Username: the whole address. Accounts in Europe use smtp.zoho.eu; two-factor ones an app password.",
    ),
}
SENDING_SERVICES: Final = {
    "ses": Provider(
        "Amazon SES",
        "email-smtp.us-east-1.amazonaws.com",
        hint="Put your region into the server address. Username and password: SES's SMTP credentials.",
    ),
    "brevo": Provider(
        "Brevo", "smtp-relay.brevo.com", hint="Username: the SMTP login. Password: an SMTP key, not an API key."
    ),
    "mailgun": Provider(
        "Mailgun", "smtp.mailgun.org", hint="Username and password: SMTP credentials of the sending domain."
    ),
    "mailgun-eu": Provider(
        "Mailgun (EU)", "smtp.eu.mailgun.org", hint="Username and password: SMTP credentials of the sending domain."
    ),
    "mailjet": Provider("Mailjet", "in-v3.mailjet.com", hint="Username: the API key. Password: the secret key."),
    "postmark": Provider(
        "Postmark", "smtp.postmarkapp.com", hint="Username and password: the Server API token, in both fields."
    ),
    "sendgrid": Provider(
        "SendGrid", "smtp.sendgrid.net", username="apikey", hint="Username: the word apikey. Password: an API key."
    ),
}
GROUPS: Final[Mapping[str, Mapping[str, Provider]]] = {
    "Any": {"smtp": Provider("Generic SMTP")},
    "Mailboxes": MAILBOXES,
    "Sending services": SENDING_SERVICES,
}
PROVIDERS: Final[Mapping[str, Provider]] = {key: each for group in GROUPS.values() for key, each in group.items()}


def provider_of(host: str) -> Provider | None:
    """Return whose mail server a host is, where that is known; Amazon SES has one in each region."""
    name = host.lower()
    if name.startswith("email-smtp.") and name.endswith(".amazonaws.com"):
        return PROVIDERS["ses"]
    return next((each for each in PROVIDERS.values() if each.host == name), None)
