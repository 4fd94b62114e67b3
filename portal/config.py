"""The settings: read once from the environment and the settings file, and checked.

The table in `docs/reference/settings.md` is generated from this file; a test keeps the two equal.
"""

import os
import ssl
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import limits
from flask import current_app
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from portal import settings_file
from portal.generated_secrets import read_or_generate
from portal.setting_formats import (
    HOST,
    MIN_SECRET_LENGTH,
    check_database_url,
    full_host_name,
    is_loopback,
    is_provider_url,
    is_strong,
    names_many_directories,
    parse_keys,
    split,
    without_path,
)

PRODUCT: Final = "PBX Notification Portal"
PACKAGE: Final = Path(__file__).resolve().parent
IS_INSTALLED: Final = (PACKAGE / "templates").is_dir()  # from a wheel, which has all folders in the package
ROOT = PACKAGE if IS_INSTALLED else PACKAGE.parent
MAX_SHARED_LIMIT = 1_000_000_000
EMBEDDED: Final = "embedded"  # instead of the URL of a database

SECRET_VARIABLES: Final = (
    *("SECRET_KEY", "SECRET_KEY_FALLBACKS", "ENCRYPTION_KEYS", "DATABASE_URL", "MIGRATION_DATABASE_URL"),
    *("PORTAL_PASSWORD", "PORTAL_MAIL_PASSWORD", "MICROSOFT_CLIENT_SECRET", "GOOGLE_CLIENT_SECRET"),
    *("SSO_CLIENT_SECRET", "METRICS_TOKEN"),
)

Network: TypeAlias = IPv4Network | IPv6Network


class UnsafeSettings(SystemExit):
    """The settings cannot be used: the text names each one and says what it needs. Ends the program with status 1."""


class Settings(BaseSettings):
    """The settings, named as their environment variables in lower case. The defaults are safe in production."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    portal_env: Literal["production", "development"] = Field(
        "production", description="`development` creates missing secrets in `VAR_DIR` and may use the embedded Postgres"
    )
    portal_url: str | None = Field(
        None, description="URL at which people and softphones reach the portal, such as `https://portal.example.com`"
    )
    secret_key: SecretStr | None = Field(None, description="Signs sessions and links: at least 32 random characters")
    secret_key_fallbacks: SecretStr | None = Field(
        None, description="Earlier values of `SECRET_KEY`, separated by commas, whose sessions and links stay valid"
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="Keys for stored secrets, each `id:base64` of 32 bytes, separated by commas. All decrypt, "
        "the first one encrypts",
    )
    database_url: str | None = Field(
        None,
        description="`postgresql://…`, or `embedded`: a Postgres in `VAR_DIR`. Unset in development: `embedded`",
    )
    migration_database_url: str | None = Field(
        None,
        description="The same database as the owner of its tables, for `pbx-portal upgrade`. Unset: `DATABASE_URL`",
    )
    var_dir: Path = Field(
        Path("/var/lib/pbx-portal") if IS_INSTALLED else ROOT / "var",
        description="Folder for the data of development: embedded Postgres, secrets, captured email",
    )
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Other host names than that of `PORTAL_URL` at which pages may be opened, separated by commas"
    )
    trusted_proxies: int = Field(
        0, ge=0, le=5, description="Number of reverse proxies whose `X-Forwarded-*` headers are trusted"
    )
    smtp_helo_name: str | None = Field(
        None,
        description="Name with which the portal greets mail servers (EHLO), such as `portal.example.com`. "
        "Unset: the host in `PORTAL_URL`",
    )
    mail_ca_file: Path | None = Field(
        None, description="PEM file of certificate authorities to trust for mail servers, in addition to the system's"
    )
    smtp_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Private networks in which tenants' mail servers are allowed, on any port and without encryption, "
        "such as `10.1.2.0/24,fd00::/64`",
    )
    microsoft_client_id: str | None = Field(
        None, description="Client ID of an app registered with Microsoft, with which all tenants may sign in"
    )
    microsoft_client_secret: SecretStr | None = Field(None, description="Its client secret")
    microsoft_authority: str = Field(
        "https://login.microsoftonline.com",
        description="URL at which Microsoft 365 accounts sign in and access tokens are requested",
    )
    microsoft_smtp_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further mail servers that may get Microsoft's access tokens, separated by commas"
    )
    google_client_id: str | None = Field(
        None, description="Client ID of an app registered with Google, with which all tenants may sign in"
    )
    google_client_secret: SecretStr | None = Field(None, description="Its client secret")
    google_authorization_url: str = Field(
        "https://accounts.google.com/o/oauth2/v2/auth", description="URL at which Google accounts sign in"
    )
    google_token_url: str = Field(
        "https://oauth2.googleapis.com/token", description="URL at which access tokens of Google accounts are requested"
    )
    google_smtp_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further mail servers that may get Google's access tokens, separated by commas"
    )
    sso_issuer: str | None = Field(
        None,
        description="Issuer URL of the OpenID provider with which people sign in, such as "
        "`https://login.microsoftonline.com/<directory ID>/v2.0`. Unset: no single sign-on",
    )
    sso_client_id: str | None = Field(None, description="Client ID of the app registered with that provider")
    sso_client_secret: SecretStr | None = Field(None, description="Its client secret. Unset: a public client with PKCE")
    sso_label: str = Field("SSO", min_length=1, max_length=40, description="Name of the provider on the sign-in page")
    sso_email_domains: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Domains whose email addresses the provider may vouch for, separated by commas. Unset: all"
    )
    sso_trust_email: bool = Field(
        False,
        description="`true`: an email address is verified although the provider does not say so. Only for a provider "
        "in which nobody can enter an address of their choice",
    )
    sso_two_factor: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Values of the claims `amr` and `acr` that prove two-factor authentication at the provider, "
        "separated by commas; `*` if the provider always requires it. Unset: the portal asks for its own code",
    )
    sso_only: bool = Field(
        False, description="`true`: passwords are rejected, except those of accounts marked as break-glass"
    )
    concurrent_emails_per_server: int = Field(
        4, ge=1, le=100, description="Emails that one process sends through one mail server at the same time"
    )
    concurrent_emails: int = Field(
        12,
        ge=1,
        le=1000,
        description="Emails that one process sends at the same time in total: fewer than it has threads",
    )
    page_connections: int = Field(
        8,
        ge=6,
        le=100,
        description="Connections to Postgres of one process for other work than events and email, at most",
    )
    event_rate_limit: str = Field(
        "6000 per minute",
        description="Events that a tenant may post to one process, and all system keys together, in the notation of "
        "the `limits` library",
    )
    shared_server_hourly_limit: int = Field(
        600,
        ge=0,
        le=MAX_SHARED_LIMIT,
        description="Emails that a tenant may send in an hour through the system's shared mail server, counted by "
        "recipient. More are held and sent later. 0: no limit",
    )
    shared_server_daily_limit: int = Field(3000, ge=0, le=MAX_SHARED_LIMIT, description="The same in a day")
    max_event_bytes: int = Field(65_536, ge=1024, le=1_000_000, description="Maximum size of an event's body in bytes")
    retention_days: int = Field(
        90, ge=1, le=3650, description="Days after which events and their deliveries are deleted"
    )
    worker_concurrency: int = Field(16, ge=1, le=100, description="Emails that one worker retries at the same time")
    alert_after_minutes: int = Field(
        15, ge=1, le=1440, description="Minutes for which a mail server fails before its administrators are emailed"
    )
    database_disk: Path | None = Field(
        None, description="A folder on the database's disk, if this host has it: an alert says when it is nearly full"
    )
    metrics_token: SecretStr | None = Field(
        None, description="Token with which Prometheus reads `/metrics`: at least 32 random characters. Unset: nobody"
    )
    log_format: Literal["text", "json"] = Field("text", description="`text` or `json`: how log lines are written")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level of the log lines that are written: `debug`, `info`, `warning` or `error`"
    )
    pbx_web_domain: str = Field(
        "", description="Domain of the PBX's own web pages, for the placeholder `%%PBX_WEB_DOMAIN%%`"
    )
    demo_mail_dir: Path | None = Field(
        None, description="Set by `make run`: the folder of captured email, which is shown at `/demo/mail`"
    )

    @field_validator("portal_url")
    @classmethod
    def _url_without_slash(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// or http://")
        return without_path(value) if value else None

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _add_psycopg_driver(cls, value: str | None) -> str | None:
        if not value or value == EMBEDDED:
            return value or None
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise ValueError("must begin with postgresql://")
        check_database_url(f"postgresql://{rest}")
        return f"postgresql+psycopg://{rest}"

    @field_validator("smtp_helo_name")
    @classmethod
    def _check_helo_name(cls, value: str | None) -> str | None:
        name = full_host_name(value) if value else None
        if value and name is None:
            raise ValueError("must be a full host name such as portal.example.com, or an IP address")
        return name

    @field_validator("mail_ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None) -> Path | None:
        try:
            if value:
                ssl.create_default_context(cafile=value)
        except OSError:  # ssl.SSLError is one
            raise ValueError("must be a PEM file of certificates") from None
        return value

    @field_validator("smtp_allowed_networks", mode="before")
    @classmethod
    def _parse_networks(cls, value: object) -> object:
        try:
            return tuple(map(ip_network, split(value))) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("must be networks such as 10.1.2.0/24, separated by commas") from None

    @field_validator("microsoft_authority", "google_authorization_url", "google_token_url")
    @classmethod
    def _check_oauth_url(cls, value: str) -> str:
        if not is_provider_url(value):
            raise ValueError("must begin with https://, or with http:// on this machine")
        return value.rstrip("/")

    @field_validator("trusted_hosts", "microsoft_smtp_hosts", "google_smtp_hosts", "sso_email_domains", mode="before")
    @classmethod
    def _parse_hosts(cls, value: object) -> object:
        hosts = split(value.lower()) if isinstance(value, str) else ()
        if not all(map(HOST.fullmatch, hosts)):
            raise ValueError("must be host names such as portal.internal, separated by commas, without ports and *")
        return hosts if isinstance(value, str) else value

    @field_validator("sso_issuer")
    @classmethod
    def _check_issuer(cls, value: str | None) -> str | None:
        if value and not is_provider_url(value):
            raise ValueError("must begin with https://, or with http:// on this machine")
        if value and names_many_directories(value):
            raise ValueError("must name one directory by its ID: https://login.microsoftonline.com/<directory ID>/v2.0")
        return value or None

    @field_validator("sso_two_factor", mode="before")
    @classmethod
    def _parse_two_factor(cls, value: object) -> object:
        return split(value) if isinstance(value, str) else value

    @field_validator("event_rate_limit")
    @classmethod
    def _check_rate(cls, value: str) -> str:
        limits.parse(value)
        return value

    @field_validator("metrics_token")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_strong(value.get_secret_value()):
            raise ValueError(f"needs at least {MIN_SECRET_LENGTH} random characters")
        return value

    @field_validator("encryption_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if self.portal_env == "production":
            required = ("secret_key", "encryption_keys", "database_url", "portal_url")
            missing = [name.upper() for name in required if getattr(self, name) is None]
            if missing:
                raise ValueError(f"production requires {', '.join(missing)}")
            if not all(map(is_strong, self.secret_keys)):
                name = "SECRET_KEY_FALLBACKS" if is_strong(self.secret_keys[0]) else "SECRET_KEY"
                raise ValueError(f"{name} needs at least {MIN_SECRET_LENGTH} random characters")
            if self.demo_mail_dir:
                raise ValueError("DEMO_MAIL_DIR shows captured email to everyone: unset it in production")
        return self

    @model_validator(mode="after")
    def _check_single_sign_on(self) -> Self:
        if self.sso_issuer and not self.sso_client_id:
            raise ValueError("SSO_ISSUER requires SSO_CLIENT_ID")
        if self.sso_only and not self.sso_issuer:
            raise ValueError("SSO_ONLY requires SSO_ISSUER: nobody could sign in")
        return self

    @property
    def secret_keys(self) -> list[str]:
        """The secret key, followed by the earlier ones."""
        assert self.secret_key is not None
        earlier = self.secret_key_fallbacks.get_secret_value() if self.secret_key_fallbacks else ""
        parts = split(earlier)
        if not all(map(is_strong, parts)):
            parts = (earlier,)  # one key that contains a comma
        return [self.secret_key.get_secret_value(), *parts]

    @property
    def uses_embedded_postgres(self) -> bool:
        """Whether the database is the embedded Postgres in `var_dir`."""
        return self.database_url in {None, EMBEDDED}

    @property
    def host(self) -> str:
        """The portal's host name, which it also uses in SMTP and in Message-IDs."""
        return urlsplit(self.portal_url or "").hostname or "localhost"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the portal."""
        return is_loopback(self.host)

    @property
    def helo_name(self) -> str | None:
        """The name for EHLO. None: the host of `PORTAL_URL` is no full name, and our own IP address has to do."""
        return self.smtp_helo_name or full_host_name(self.host)

    @property
    def is_https(self) -> bool:
        """Whether people reach the portal over TLS, so that cookies can require it."""
        return self.portal_url is not None and self.portal_url.startswith("https://")


def load() -> Settings:
    """Return the settings of the environment, and of the settings file those that the environment does not have.

    Raise UnsafeSettings if one is missing, weak or invalid.
    """
    try:
        settings = Settings(_env_file=settings_file.readable())
    except settings_file.SettingsFileUnreadable as error:
        raise UnsafeSettings(str(error)) from None
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = f"{problem['loc'][0]}: ".upper() if problem["loc"] else ""
            lines.append(f"  {name}{problem['msg'].removeprefix('Value error, ')}")
        raise UnsafeSettings("The portal cannot start:\n" + "\n".join(lines)) from None
    return settings if settings.portal_env == "production" else _with_generated_secrets(settings)


def remove_secrets_from_environment() -> None:
    """Remove what is secret from the process's environment, which web servers and error reporters copy.

    For processes that serve, once they have their settings. A process that starts others must not use it.
    """
    for name in SECRET_VARIABLES:
        os.environ.pop(name, None)


def current() -> Settings:
    """Return the settings of the running application."""
    settings: Settings = extension("settings")
    return settings


def extension(name: str) -> Any:
    """Return what the running application keeps under this name: `current_app.extensions` takes five times as long."""
    return current_app._get_current_object().extensions[name]  # type: ignore[attr-defined]


def _with_generated_secrets(settings: Settings) -> Settings:
    """Add the secrets that a developer has not set."""
    kept = {name: SecretStr(value) for name, value in read_or_generate(settings.var_dir / "secrets.json").items()}
    missing = {name: value for name, value in kept.items() if getattr(settings, name) is None}
    return settings.model_copy(update=missing | {"portal_url": settings.portal_url or "http://127.0.0.1:8000"})
