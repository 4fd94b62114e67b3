"""The "Email Service Providers" and their mail servers' settings: to add a provider, add an entry.

Hosts, ports and usernames are from the providers' own instructions.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from portal.mail_servers.advice import AMAZON, ZOHO, is_host_of
from portal.mail_servers.smtp.client import Encryption
from portal.web.i18n import to_translate


class Provider(NamedTuple):
    """An email provider, with the settings that all of its customers share.

    `username` is set if it is the same for all customers; `hint` says what username and password to enter. `hosts` are
    the provider's hosts, if some customers use another one.
    """

    label: str
    host: str = ""
    port: int = 587
    encryption: Encryption = Encryption.STARTTLS
    username: str = ""
    hint: str = ""
    hosts: str = ""


MAILBOX_PASSWORD: Final = to_translate("Username: the full email address. Password: the mailbox's password.")
APP_PASSWORD: Final = to_translate("Username: the full email address. Password: an app password.")
DOMAIN_CREDENTIALS: Final = to_translate("Username and password: SMTP credentials of the sending domain.")

MAILBOXES: Final = {
    "gmail": Provider(
        "Google Gmail",
        "smtp.gmail.com",
        hint=to_translate(
            "Username: the full email address. Password: an app password, which requires 2-Step Verification."
        ),
    ),
    "microsoft365": Provider(
        "Microsoft 365",
        "smtp.office365.com",
        hint=to_translate("Username: the full email address. Authenticated SMTP must be turned on for the mailbox."),
    ),
    "fastmail": Provider("Fastmail", "smtp.fastmail.com", 465, Encryption.TLS, hint=APP_PASSWORD),
    "gmx": Provider(
        "GMX",
        "mail.gmx.net",
        hint=to_translate(
            "Username: the full email address. Password: the mailbox's password. "
            "POP3 and IMAP must be allowed for the mailbox."
        ),
    ),
    "icloud": Provider(
        "iCloud Mail",
        "smtp.mail.me.com",
        hint=to_translate("Username: the full email address. Password: an app-specific password of the Apple Account."),
    ),
    "infomaniak": Provider("Infomaniak", "mail.infomaniak.com", 465, Encryption.TLS, hint=MAILBOX_PASSWORD),
    "ionos": Provider(
        "IONOS",
        "smtp.ionos.com",
        hint=to_translate(
            "Username: the full email address. Password: the mailbox's password. "
            "In Germany the server is smtp.ionos.de."
        ),
    ),
    "ovh": Provider("OVHcloud", "ssl0.ovh.net", 465, Encryption.TLS, hint=MAILBOX_PASSWORD),
    "strato": Provider("STRATO", "smtp.strato.de", 465, Encryption.TLS, hint=MAILBOX_PASSWORD),
    "yahoo": Provider("Yahoo Mail", "smtp.mail.yahoo.com", 465, Encryption.TLS, hint=APP_PASSWORD),
    "zoho": Provider(
        "Zoho Mail",
        "smtp.zoho.com",
        465,
        Encryption.TLS,
        hint=to_translate(
            "Username: the full email address. Paid accounts use smtppro.zoho.com; outside the USA the name ends like "
            "your Zoho address, as in smtppro.zoho.eu. With two-factor authentication, use an app password."
        ),
        hosts=ZOHO,
    ),
}
SENDING_SERVICES: Final = {
    "ses": Provider(
        "Amazon SES",
        "email-smtp.us-east-1.amazonaws.com",
        hint=to_translate(
            "Enter your region in the server address. Username and password: the SMTP credentials from SES."
        ),
        hosts=AMAZON,
    ),
    "brevo": Provider(
        "Brevo",
        "smtp-relay.brevo.com",
        hint=to_translate("Username: the SMTP login. Password: an SMTP key, not an API key."),
    ),
    "mailgun": Provider("Mailgun", "smtp.mailgun.org", hint=DOMAIN_CREDENTIALS),
    "mailgun-eu": Provider("Mailgun (EU)", "smtp.eu.mailgun.org", hint=DOMAIN_CREDENTIALS),
    "mailjet": Provider(
        "Mailjet", "in-v3.mailjet.com", hint=to_translate("Username: the API key. Password: the secret key.")
    ),
    "postmark": Provider(
        "Postmark",
        "smtp.postmarkapp.com",
        hint=to_translate("Username and password: the Server API token in both fields."),
    ),
    "sendgrid": Provider(
        "SendGrid",
        "smtp.sendgrid.net",
        username="apikey",
        hint=to_translate("Username: the word apikey. Password: an API key."),
    ),
}
PROVIDER_GROUPS: Final[Mapping[str, Mapping[str, Provider]]] = {
    to_translate("Other"): {"smtp": Provider(to_translate("Generic SMTP"))},
    to_translate("Mailboxes"): MAILBOXES,
    to_translate("Sending services"): SENDING_SERVICES,
}
PROVIDERS: Final[Mapping[str, Provider]] = {
    key: provider for group in PROVIDER_GROUPS.values() for key, provider in group.items()
}


def provider_of(host: str) -> Provider | None:
    """Return the provider that a host belongs to, if it is a known one."""
    named = (provider for provider in PROVIDERS.values() if provider.host)
    return next((provider for provider in named if is_host_of(provider.hosts or re.escape(provider.host), host)), None)
