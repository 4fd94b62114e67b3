"""Every setting of the portal: read once from the environment, checked, documented.

The table in `docs/settings.md` is made from this file and a test keeps the two equal.
"""

import base64
import json
import secrets
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import limits
from flask import current_app
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_SECRET_LENGTH = 32
MINIMUM_SECRET_CHARACTERS = 11  # different ones: 32 random hexadecimal digits have 14
ENCRYPTION_KEY_BYTES = 32

Network: TypeAlias = IPv4Network | IPv6Network


class UnsafeSettings(SystemExit):
    """The settings cannot be used: its text names each one and says what it needs. Ends the program with status 1."""


class Settings(BaseSettings):
    """The settings. Names are the environment variables', in lower case; defaults are safe for production."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    portal_env: Literal["production", "development"] = Field(
        "production",
        description="`development` creates missing secrets under `VAR_DIR` and may use the embedded Postgres",
    )
    portal_url: str | None = Field(
        None,
        description="Address under which people and softphones reach the portal, like `https://portal.example.com`",
    )
    secret_key: SecretStr | None = Field(None, description="Signs sessions and links; at least 32 random characters")
    encryption_keys: SecretStr | None = Field(
        None,
        description="Keys of stored secrets, `id:base64` of 32 bytes each, separated by commas; the first one encrypts",
    )
    database_url: str | None = Field(None, description="`postgresql://…`; unset in development: an embedded Postgres")
    migration_database_url: str | None = Field(
        None, description="The same database as the owner of its tables, for `flask db upgrade`; unset: `DATABASE_URL`"
    )
    var_dir: Path = Field(
        ROOT / "var", description="Where development keeps its data: embedded Postgres, secrets, caught mail"
    )
    trusted_proxies: int = Field(
        0, ge=0, le=5, description="Reverse proxies in front whose `X-Forwarded-*` headers count"
    )
    mail_ca_file: Path | None = Field(
        None, description="PEM file of certificate authorities that mail servers may use besides the machine's own"
    )
    smtp_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Networks that tenants' mail servers may be in besides the internet, at any port and without "
        "encryption, like `10.1.2.0/24,fd00::/64`",
    )
    mail_sessions: int = Field(
        4, ge=1, le=100, description="Mails that one process sends through one mail server at the same time"
    )
    mails_at_once: int = Field(
        12,
        ge=1,
        le=1000,
        description="Mails that one process sends at the same time in all; fewer than it has threads",
    )
    event_rate_limit: str = Field(
        "6000 per minute",
        description="Events that one PBX key may post to one process, in the notation of Flask-Limiter",
    )
    event_body_bytes: int = Field(65_536, ge=1024, description="Largest body of an event, in bytes")
    retention_days: int = Field(90, ge=1, description="Days after which events and their deliveries are deleted")
    worker_concurrency: int = Field(16, ge=1, le=100, description="Mails that one worker tries again at the same time")
    pbx_web_domain: str = Field(
        "", description="Where people reach the PBX's own web pages; fills in `%%PBX_WEB_DOMAIN%%`"
    )
    demo_mail_dir: Path | None = Field(
        None, description="Set by `make run`: where its mail catcher keeps mail; shows it at `/demo/mail`"
    )

    @field_validator("portal_url")
    @classmethod
    def _address_without_slash(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// or http://")
        return value.rstrip("/") if value else None

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _psycopg_driver(cls, value: str | None) -> str | None:
        if not value:
            return None
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise ValueError("must begin with postgresql://")
        return f"postgresql+psycopg://{rest}"

    @field_validator("smtp_allowed_networks", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise ValueError("must be networks like 10.1.2.0/24, separated by commas") from None

    @field_validator("event_rate_limit")
    @classmethod
    def _readable_rate(cls, value: str) -> str:
        limits.parse(value)
        return value

    @field_validator("encryption_keys")
    @classmethod
    def _readable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _production_has_its_secrets(self) -> Self:
        if self.portal_env == "production":
            needed = ("secret_key", "encryption_keys", "database_url", "portal_url")
            missing = [name.upper() for name in needed if getattr(self, name) is None]
            if missing:
                raise ValueError(f"production needs {', '.join(missing)}")
            assert self.secret_key is not None
            secret = self.secret_key.get_secret_value()
            if len(secret) < MINIMUM_SECRET_LENGTH or len(set(secret)) < MINIMUM_SECRET_CHARACTERS:
                raise ValueError(f"SECRET_KEY needs at least {MINIMUM_SECRET_LENGTH} random characters")
        return self

    @property
    def host(self) -> str:
        """The host name of the portal: its name towards mail servers and in Message-IDs."""
        return urlsplit(self.portal_url or "").hostname or "localhost"

    @property
    def is_https(self) -> bool:
        """Whether people reach the portal over TLS, so that cookies may insist on it."""
        return self.portal_url is not None and self.portal_url.startswith("https://")


def parse_keys(text: str) -> dict[str, bytes]:
    """Return the encryption keys by id, the encrypting one first.

    Raises:
        ValueError: a part is not `id:base64` of 32 bytes, or an id stands twice.
    """
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        key_id, _, encoded = part.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not key_id or len(key) != ENCRYPTION_KEY_BYTES or key_id in keys:
            raise ValueError("must be id:base64 of 32 random bytes, separated by commas, each id once")
        keys[key_id] = key
    return keys


def table() -> str:
    """Return the settings as the Markdown table of `docs/settings.md`."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "`var/`" if name == "var_dir" else f"`{field.default}`" if field.default not in (None, "", ()) else ""
        lines.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def load() -> Settings:
    """Return the settings of this environment.

    Raises:
        UnsafeSettings: naming each setting that is missing, weak or unreadable.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        lines = (
            f"  {_name(problem['loc'])}{problem['msg'].removeprefix('Value error, ')}" for problem in error.errors()
        )
        raise UnsafeSettings("The portal does not start:\n" + "\n".join(lines)) from None
    return settings if settings.portal_env == "production" else _with_own_secrets(settings)


def current() -> Settings:
    """Return the settings of the running application."""
    settings: Settings = current_app.extensions["settings"]
    return settings


def _name(location: tuple[int | str, ...]) -> str:
    return f"{location[0]}: ".upper() if location else ""


def _with_own_secrets(settings: Settings) -> Settings:
    """Fill in what a developer did not set, and keep it, so that a second start reads what the first one wrote."""
    file = settings.var_dir / "secrets.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        key = base64.b64encode(secrets.token_bytes(ENCRYPTION_KEY_BYTES)).decode()
        file.touch(mode=0o600)
        file.write_text(json.dumps({"secret_key": secrets.token_urlsafe(48), "encryption_keys": f"1:{key}"}))
    own = {name: SecretStr(value) for name, value in json.loads(file.read_text()).items()}
    own = {name: value for name, value in own.items() if getattr(settings, name) is None}
    return settings.model_copy(update=own | {"portal_url": settings.portal_url or "http://127.0.0.1:8000"})
