"""The "Email Service Providers" and what is known about each: to add a provider, add an entry.

Hosts, ports, usernames and DNS names are from the providers' own instructions.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from portal.mail_servers.advice import AMAZON, ZOHO, is_host_of
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.web.i18n import to_translate

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Provider(NamedTuple):
    """An email provider, with the settings that its customers share.

    `username` is set if it is the same for all customers; `hint` says what username and password to enter, `warning`
    what else to know. If not all customers use `host`, `hosts` has the hosts to choose from with their labels, and
    `choice` says what distinguishes them. Names in DNS are regular expressions for `is_host_of`, except `spf`.
    """

    label: str
    host: str = ""
    port: int = 587
    encryption: Encryption = Encryption.STARTTLS
    auth_mode: AuthMode = AuthMode.AUTO
    username: str = ""
    hint: str = ""
    warning: str = ""
    choice: str = ""
    hosts: Mapping[str, str] = NOTHING
    host_names: str = ""  # all its hosts, if there are others than `host` and `hosts`
    greets_as_sender: bool = False  # EHLO has to show the sender's domain
    # How the DNS of a customer's domain looks:
    mx: Mapping[str, str] = NOTHING  # the mail exchangers of a mailbox provider, and the host that its customers use
    mailbox_domains: str = ""  # domains of the provider itself, in which everyone can have a mailbox
    spf: tuple[str, ...] = ()  # what the SPF record includes: one of these domains, usually the first
    spf_of_host: Mapping[str, str] = NOTHING  # another of them for customers of a host
    has_own_envelope: bool = False  # SPF is checked for a domain of the provider, not for the sender's
    dkim: tuple[str, ...] = ()  # the usual selectors


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
        mx={r"google\.com|googlemail\.com": "smtp.gmail.com"},
        mailbox_domains=r"gmail\.com|googlemail\.com",
        spf=("_spf.google.com",),
        dkim=("google",),
    ),
    "google-relay": Provider(
        "Google Workspace SMTP relay",
        "smtp-relay.gmail.com",
        auth_mode=AuthMode.NONE,
        hint=to_translate(
            "No sign-in: allow the portal's IP address under “SMTP relay service” in the Google Admin console. The "
            "sender email must be in a domain of your organisation."
        ),
        warning=to_translate(
            "With this, everyone who uses this portal can send as your organisation's domains. If others use it too, "
            "require sign-in in the Google Admin console, and enter an app password."
        ),
        greets_as_sender=True,
        spf=("_spf.google.com",),
        dkim=("google",),
    ),
    "microsoft365": Provider(
        "Microsoft 365",
        "smtp.office365.com",
        auth_mode=AuthMode.OAUTH,
        hint=to_translate("Username: the full email address. Authenticated SMTP must be turned on for the mailbox."),
        warning=to_translate(
            "Microsoft turns sign-in with a password off at the end of December 2026. Until the second half of 2027 at "
            "the earliest, your Microsoft 365 administrator can turn it on again; then Microsoft removes it."
        ),
        mx={r"mail\.protection\.outlook\.com|mx\.microsoft": "smtp.office365.com"},
        spf=("spf.protection.outlook.com",),
        dkim=("selector1", "selector2"),
    ),
    "fastmail": Provider(
        "Fastmail",
        "smtp.fastmail.com",
        465,
        Encryption.TLS,
        hint=APP_PASSWORD,
        mx={r"messagingengine\.com": "smtp.fastmail.com"},
        mailbox_domains=r"fastmail\.(com|fm)",
        spf=("spf.messagingengine.com",),
        dkim=("fm1", "fm2", "fm3"),
    ),
    "gmx": Provider(
        "GMX",
        "mail.gmx.net",
        hint=to_translate(
            "Username: the full email address. Password: the mailbox's password. "
            "POP3 and IMAP must be allowed for the mailbox."
        ),
        mx={r"gmx\.net": "mail.gmx.net"},
        mailbox_domains=r"gmx\.(at|ch|de|net)",
    ),
    "icloud": Provider(
        "iCloud Mail",
        "smtp.mail.me.com",
        hint=to_translate("Username: the full email address. Password: an app-specific password of the Apple Account."),
        mx={r"mail\.icloud\.com": "smtp.mail.me.com"},
        mailbox_domains=r"(icloud|me|mac)\.com",
        spf=("icloud.com",),
        dkim=("sig1",),
    ),
    "infomaniak": Provider(
        "Infomaniak",
        "mail.infomaniak.com",
        465,
        Encryption.TLS,
        hint=MAILBOX_PASSWORD,
        mx={r"infomaniak\.(ch|com)": "mail.infomaniak.com"},
        spf=("spf.infomaniak.ch",),
    ),
    "ionos": Provider(
        "IONOS",
        "smtp.ionos.com",
        hint=MAILBOX_PASSWORD,
        choice=to_translate("Country"),
        hosts={f"smtp.ionos.{ending}": f"ionos.{ending}" for ending in ("com", "de", "co.uk")},
        mx={
            r"ionos\.com|perfora\.net": "smtp.ionos.com",
            r"ionos\.de|kundenserver\.de": "smtp.ionos.de",
            r"ionos\.co\.uk": "smtp.ionos.co.uk",
        },
        spf=("_spf-us.ionos.com", "_spf-eu.ionos.com", "_spf.perfora.net", "_spf.kundenserver.de"),
        spf_of_host=dict.fromkeys(("smtp.ionos.de", "smtp.ionos.co.uk"), "_spf-eu.ionos.com"),
        dkim=("s1-ionos", "s2-ionos"),
    ),
    "ovh": Provider(
        "OVHcloud",
        "ssl0.ovh.net",
        465,
        Encryption.TLS,
        hint=MAILBOX_PASSWORD,
        mx={r"mail\.ovh\.net": "ssl0.ovh.net"},
        spf=("mx.ovh.com",),
    ),
    "strato": Provider(
        "STRATO",
        "smtp.strato.de",
        465,
        Encryption.TLS,
        hint=MAILBOX_PASSWORD,
        mx={r"rzone\.de": "smtp.strato.de"},
    ),
    "yahoo": Provider(
        "Yahoo Mail",
        "smtp.mail.yahoo.com",
        465,
        Encryption.TLS,
        hint=APP_PASSWORD,
        mx={r"am0\.yahoodns\.net": "smtp.mail.yahoo.com"},
        mailbox_domains=r"(yahoo|ymail|rocketmail)\.com|yahoo\.(de|es|fr|co\.uk)",
    ),
    "zoho": Provider(
        "Zoho Mail",
        "smtp.zoho.com",
        465,
        Encryption.TLS,
        hint=to_translate(
            "Username: the full email address. Paid organisations use smtppro, others smtp; the ending is that of the "
            "address at which you open Zoho Mail. With two-factor authentication, use an app password."
        ),
        choice=to_translate("Data centre"),
        hosts={
            f"{name}.zoho.{ending}": f"{name}.zoho.{ending}"
            for ending in ("com", "eu", "in", "com.au", "jp")
            for name in ("smtp", "smtppro")
        },
        host_names=ZOHO,
        mx={
            r"zoho\.com": "smtppro.zoho.com",
            r"zoho\.eu": "smtppro.zoho.eu",
            r"zoho\.in": "smtppro.zoho.in",
            r"zoho\.com\.au": "smtppro.zoho.com.au",
            r"zoho\.jp": "smtppro.zoho.jp",
        },
        mailbox_domains=r"(zoho|zohomail)\.com|zohomail\.(eu|in)",
        spf=("zohomail.com", "zoho.com", "zohomail.eu", "zoho.eu", "zoho.in", "zoho.com.au", "zoho.jp"),
        spf_of_host={
            f"{name}.zoho.{ending}": f"zoho.{ending}"
            for ending in ("eu", "in", "com.au", "jp")
            for name in ("smtp", "smtppro")
        },
        dkim=("zmail", "zoho"),
    ),
}
SENDING_SERVICES: Final = {
    "ses": Provider(
        "Amazon SES",
        "email-smtp.us-east-1.amazonaws.com",
        hint=to_translate(
            "Username and password: SMTP credentials of this region from the SES console, not an access key. Port 465 "
            "with TLS works too."
        ),
        choice=to_translate("Region"),
        hosts={
            f"email-smtp.{region}.amazonaws.com": f"{region} ({place})"
            for region, place in {
                "us-east-1": "N. Virginia",
                "us-east-2": "Ohio",
                "us-west-1": "N. California",
                "us-west-2": "Oregon",
                "af-south-1": "Cape Town",
                "ap-northeast-1": "Tokyo",
                "ap-northeast-2": "Seoul",
                "ap-northeast-3": "Osaka",
                "ap-south-1": "Mumbai",
                "ap-southeast-1": "Singapore",
                "ap-southeast-2": "Sydney",
                "ap-southeast-3": "Jakarta",
                "ca-central-1": "Montréal",
                "eu-central-1": "Frankfurt",
                "eu-north-1": "Stockholm",
                "eu-south-1": "Milano",
                "eu-west-1": "Dublin",
                "eu-west-2": "London",
                "eu-west-3": "Paris",
                "il-central-1": "Tel Aviv",
                "me-south-1": "Bahrain",
                "sa-east-1": "São Paulo",
                "us-gov-east-1": "GovCloud",
                "us-gov-west-1": "GovCloud",
            }.items()
        },
        host_names=AMAZON,
        has_own_envelope=True,
    ),
    "brevo": Provider(
        "Brevo",
        "smtp-relay.brevo.com",
        hint=to_translate("Username: the SMTP login. Password: an SMTP key, not an API key."),
        has_own_envelope=True,
        dkim=("brevo1", "brevo2", "mail"),
    ),
    "cloudflare": Provider(
        "Cloudflare",
        "smtp.mx.cloudflare.net",
        465,
        Encryption.TLS,
        username="api_token",
        hint=to_translate(
            "Username: the word api_token. Password: an API token with the permission “Email Sending: Edit”."
        ),
        has_own_envelope=True,
    ),
    "mailgun": Provider(
        "Mailgun",
        "smtp.mailgun.org",
        hint=DOMAIN_CREDENTIALS,
        choice=to_translate("Region"),
        hosts={"smtp.mailgun.org": "US", "smtp.eu.mailgun.org": "EU"},
        spf=("mailgun.org",),
        dkim=("mx", "k1", "smtp", "email"),
    ),
    "mailjet": Provider(
        "Mailjet",
        "in-v3.mailjet.com",
        hint=to_translate("Username: the API key. Password: the secret key."),
        has_own_envelope=True,
        dkim=("mailjet",),
    ),
    "postmark": Provider(
        "Postmark",
        "smtp.postmarkapp.com",
        hint=to_translate("Username and password: the Server API token in both fields."),
        choice=to_translate("Message stream"),
        hosts={
            "smtp.postmarkapp.com": to_translate("Transactional"),
            "smtp-broadcasts.postmarkapp.com": to_translate("Broadcast"),
        },
        has_own_envelope=True,
    ),
    "sendgrid": Provider(
        "SendGrid",
        "smtp.sendgrid.net",
        username="apikey",
        hint=to_translate("Username: the word apikey. Password: an API key."),
        has_own_envelope=True,
        dkim=("s1", "s2"),
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


def key_of(host: str) -> str | None:
    """Return the key of the provider that a host belongs to, if it is a known one."""
    return next((key for key, provider in PROVIDERS.items() if _has_host(provider, host)), None)


def provider_of(host: str) -> Provider | None:
    """Return the provider that a host belongs to, if it is a known one."""
    key = key_of(host)
    return PROVIDERS[key] if key else None


def _has_host(provider: Provider, host: str) -> bool:
    names = provider.host_names or "|".join(map(re.escape, provider.hosts or (provider.host,)))
    return bool(provider.host) and is_host_of(names, host)


def host_for(mail_exchangers: Sequence[str]) -> str | None:
    """Return the host through which customers send whose email these hosts receive, if it is a known one."""
    known = [pair for provider in PROVIDERS.values() for pair in provider.mx.items()]
    return next((host for exchanger in mail_exchangers for names, host in known if is_host_of(names, exchanger)), None)


def host_for_mailbox(domain: str) -> str | None:
    """Return the host of the provider in whose own domain everyone can have a mailbox, if it is such a domain."""
    known = ((provider.mailbox_domains, provider.host) for provider in PROVIDERS.values())
    return next((host for names, host in known if names and re.fullmatch(names, domain)), None)


def helo_name_for(host: str, sender_email: str) -> str | None:
    """Return the sender's domain if the host's provider expects it in EHLO. None: the portal's own name."""
    provider = provider_of(host)
    return sender_email.rpartition("@")[2] if provider and provider.greets_as_sender else None
