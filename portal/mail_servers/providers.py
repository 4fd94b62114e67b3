"""The "Email Service Providers" and what their mail servers want: one more is one more entry."""

from typing import NamedTuple

from portal.mail_servers.connection import Encryption


class Provider(NamedTuple):
    """A provider of mail servers: its name, the settings that all of its customers share, and what to know."""

    label: str
    host: str = ""
    port: int = 587
    encryption: Encryption = Encryption.STARTTLS
    hint: str = ""


PROVIDERS = {
    "smtp": Provider("Generic SMTP"),
    "gmail": Provider(
        "Google Gmail",
        "smtp.gmail.com",
        hint="Username: the whole address. Password: an app password, which needs 2-Step Verification.",
    ),
    "microsoft365": Provider(
        "Microsoft 365",
        "smtp.office365.com",
        hint="Username: the whole address. Authenticated SMTP must be switched on for the mailbox.",
    ),
}
