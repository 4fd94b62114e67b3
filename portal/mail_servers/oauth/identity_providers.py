"""The providers whose mail servers accept access tokens: where tokens are requested, and for what.

The URLs are settings of the portal's operator. Whatever a tenant enters, secrets and tokens are sent nowhere else.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from portal import config
from portal.mail_servers.advice import MICROSOFT, is_host_of

GMAIL: Final = r"(smtp|smtp-relay)\.(gmail|googlemail)\.com"
# Exchange Online in a national cloud, by the host of its authority: tokens for the public one are not valid there.
NATIONAL_RESOURCES: Final = {
    "login.microsoftonline.us": "https://outlook.office365.us",
    "login.partner.microsoftonline.cn": "https://partner.outlook.cn",
    "login.chinacloudapi.cn": "https://partner.outlook.cn",
}
ORGANIZATIONS: Final = "organizations"  # any organisation's directory, but no private account
REDIRECT_PATH: Final = "/oauth/callback"


class GrantType(StrEnum):
    """How the portal gets access tokens."""

    AUTHORIZATION_CODE = "authorization_code"  # a person has signed in (RFC 6749, section 4.1)
    CLIENT_CREDENTIALS = "client_credentials"  # the app itself has the permission (RFC 6749, section 4.4)
    SERVICE_ACCOUNT = "service_account"  # an account of the app may act for the mailbox (RFC 7523, section 2.1)


class AppCredentials(NamedTuple):
    """An app that is registered with a provider."""

    client_id: str
    client_secret: str


class IdentityProvider(NamedTuple):
    """A provider. `grant_types` are the ways to connect, in the order in which they are offered."""

    key: str
    label: str
    grant_types: tuple[GrantType, ...]
    hosts: str  # a regular expression for the hosts of its mail servers
    scope: str  # for a person who signs in: to send email, to stay connected, and to know which mailbox it is
    scope_without_person: str
    authorization_parameters: dict[str, str]


PROVIDERS_BY_KEY: Final = {
    "microsoft": IdentityProvider(
        "microsoft",
        "Microsoft",
        (GrantType.AUTHORIZATION_CODE, GrantType.CLIENT_CREDENTIALS),
        MICROSOFT,
        "https://outlook.office.com/SMTP.Send offline_access openid profile",
        "https://outlook.office365.com/.default",
        {"prompt": "select_account"},
    ),
    "google": IdentityProvider(
        "google",
        "Google",
        (GrantType.AUTHORIZATION_CODE, GrantType.SERVICE_ACCOUNT),
        GMAIL,
        "https://mail.google.com/ openid email",
        "https://mail.google.com/",
        {"access_type": "offline", "prompt": "consent"},  # without both there is no refresh token
    ),
}


def scope_of(provider: IdentityProvider, *, by_person: bool) -> str:
    """Return what to ask the provider for."""
    scope = provider.scope if by_person else provider.scope_without_person
    resource = NATIONAL_RESOURCES.get(urlsplit(config.current().microsoft_authority).hostname or "")
    if provider.key == "microsoft" and resource:
        return re.sub(r"https://outlook\.office(365)?\.com", resource, scope)
    return scope


def provider_of_host(host: str) -> IdentityProvider | None:
    """Return the provider whose tokens a mail server accepts: tokens are sent to no other host."""
    settings = config.current()
    for provider in PROVIDERS_BY_KEY.values():
        others = settings.microsoft_smtp_hosts if provider.key == "microsoft" else settings.google_smtp_hosts
        if is_host_of(provider.hosts, host) or host.lower().rstrip(".") in others:
            return provider
    return None


def operator_app(provider: IdentityProvider) -> AppCredentials | None:
    """Return the app that the portal's operator has registered for all tenants, or None."""
    settings = config.current()
    client_id, secret = (
        (settings.microsoft_client_id, settings.microsoft_client_secret)
        if provider.key == "microsoft"
        else (settings.google_client_id, settings.google_client_secret)
    )
    return AppCredentials(client_id, secret.get_secret_value()) if client_id and secret else None


def authorization_url(provider: IdentityProvider, directory: str | None) -> str:
    """Return where a person signs in."""
    if provider.key == "microsoft":
        return _microsoft_url(directory, "authorize")
    return config.current().google_authorization_url


def admin_consent_url(provider: IdentityProvider, client_id: str, directory: str | None) -> str | None:
    """Return where an administrator consents to an app for the whole organisation, where a provider has such a page."""
    if provider.key != "microsoft":
        return None
    scope = scope_of(provider, by_person=True).split()[0]
    query = urlencode({"client_id": client_id, "redirect_uri": redirect_url(), "scope": scope})
    authority = config.current().microsoft_authority
    return f"{authority}/{quote(directory or ORGANIZATIONS, safe='')}/v2.0/adminconsent?{query}"


def token_url(provider: IdentityProvider, directory: str | None) -> str:
    """Return where tokens are requested."""
    return _microsoft_url(directory, "token") if provider.key == "microsoft" else config.current().google_token_url


def redirect_url() -> str:
    """Return where the provider sends a person's browser back to. It has to be registered with the provider."""
    return f"{config.current().portal_url}{REDIRECT_PATH}"


def is_directory(text: str) -> bool:
    """Return whether this can be a Microsoft directory: its id or one of its domains."""
    return re.fullmatch(r"[0-9A-Za-z](?:[0-9A-Za-z.-]{0,251}[0-9A-Za-z])?", text) is not None and (
        "." in text or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text.lower()) is not None
    )


def _microsoft_url(directory: str | None, endpoint: str) -> str:
    return f"{config.current().microsoft_authority}/{quote(directory or ORGANIZATIONS, safe='')}/oauth2/v2.0/{endpoint}"
