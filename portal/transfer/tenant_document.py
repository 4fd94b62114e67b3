"""The document of one tenant: what an export writes and an import accepts, as JSON. Version 1.

It holds settings and no history. It names nothing by the ids of a database, so that it fits into any portal.
"""

from datetime import UTC, datetime, time
from typing import Annotated, Any, Final, Literal

from flask_babel import gettext
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from portal.errors import Refusal

FORMAT: Final = "pbx-portal-tenant"
VERSION: Final = 1
MAX_BYTES: Final = 2_000_000
MAX_KEYS: Final = 50
MAX_PEOPLE: Final = 1_000
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # of a certificate without an end


def _possible(at: datetime) -> datetime:
    """Return a time with a time zone. Without one it is meant to be UTC.

    ValueError: in UTC, in which Postgres returns it, it could be in a year that Python does not know.
    """
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    if not EARLIEST <= at <= LATEST:
        raise ValueError("this time is not possible")
    return at


Time = Annotated[datetime, Field(strict=False), AfterValidator(_possible)]
Short = Annotated[str, StringConstraints(max_length=254)]
Long = Annotated[str, StringConstraints(max_length=20_000)]
EventTypeName = Annotated[str, StringConstraints(pattern=r"^[a-z_.]{1,60}$")]
EventTypes = Annotated[list[EventTypeName], Field(max_length=50)]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
SigningSecret = Annotated[str, StringConstraints(pattern="^whsec_[A-Za-z0-9+/]{43}=$")]  # as the portal makes them
Base64 = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]+=*$", max_length=1_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TenantSettings(_Part):
    """The tenant's own settings."""

    name: Short
    domain: Short
    realm: Short | None
    time_zone: Short
    language: Short
    sender_name: Short | None
    reply_to: Short | None
    brand_color: Short | None
    email_footer: Long | None
    storm_limit: int = Field(ge=1, le=1000)
    storm_minutes: int = Field(ge=1, le=60)
    alerts_on_silence: bool
    suspended: bool


class QuietHoursOfRecipient(_Part):
    """Days of the week, 0 is Monday, and times of the tenant's time zone."""

    days: list[Annotated[int, Field(ge=0, le=6)]] = Field(min_length=1, max_length=7)
    begin: time = Field(strict=False)
    end: time = Field(strict=False)


class RecipientRow(_Part):
    """One of the "Emails of Recipients" with its rules."""

    email: Short
    excluded_event_types: EventTypes
    paused_until: Time | None
    queues: list[Annotated[str, StringConstraints(max_length=500)]] = Field(max_length=500)
    quiet_hours: QuietHoursOfRecipient | None
    urgent_event_types: EventTypes


class Template(_Part):
    """The version of a template that is in use."""

    format: Literal["markdown", "html"]
    subject: Short
    body: Annotated[str, StringConstraints(max_length=100_000)]


class Notification(_Part):
    """Whether an event type is emailed, to whom, and with which template; None is the default."""

    event_type: EventTypeName
    enabled: bool
    audience: Literal["both", "recipients", "user"]
    template: Template | None


class MailServerSettings(_Part):
    """The tenant's own mail server. Its password is among the secrets."""

    provider: Short
    host: Short
    port: int = Field(ge=1, le=65_535)
    encryption: Literal["none", "starttls", "tls"]
    auth_mode: Literal["none", "auto", "login", "plain", "oauth"]
    username: Annotated[str, StringConstraints(max_length=320)] | None
    sender_email: Short


class OAuthSettings(_Part):
    """How the portal signs in to the mailbox with tokens. Its credentials are among the secrets."""

    provider: Literal["microsoft", "google"]
    grant_type: Literal["authorization_code", "client_credentials", "service_account"]
    client_id: Short | None
    directory: Short | None
    mailbox: Short | None
    certificate: Long | None
    credential_expires_at: Time | None


class Key(_Part):
    """A valid API key: the hash with which the portal recognizes it, not the key."""

    name: Short
    hash: Digest
    prefix: Annotated[str, StringConstraints(pattern=r"^pbx_[A-Za-z0-9_-]{6}$")]
    expires_at: Time | None
    signed: bool
    previous_secret_expires_at: Time | None


class Person(_Part):
    """Someone with access, or invited. They are invited by the portal that imports the tenant."""

    email: Short
    role: Literal["administrator", "viewer"]


class Secrets(_Part):
    """What is encrypted with the passphrase. Signing secrets are by the hash of their key."""

    mail_server_password: Annotated[str, StringConstraints(max_length=1000)] | None = None
    oauth_client_secret: Long | None = None
    oauth_private_key: Long | None = None
    oauth_refresh_token: Long | None = None
    signing_secrets: dict[Digest, SigningSecret] = Field(default_factory=dict, max_length=MAX_KEYS)
    previous_signing_secrets: dict[Digest, SigningSecret] = Field(default_factory=dict, max_length=MAX_KEYS)


class SealedSecrets(_Part):
    """The secrets, encrypted, and the parameters with which the passphrase becomes the key: see `sealing`."""

    kdf: Literal["scrypt"]
    n: int
    r: int
    p: int
    salt: Base64
    cipher: Literal["AES-256-GCM"]
    nonce: Base64
    ciphertext: Base64


class Document(_Part):
    """Everything about one tenant that makes its PBX work elsewhere."""

    format: Literal["pbx-portal-tenant"]
    version: Literal[1]
    tenant: TenantSettings
    recipients: list[RecipientRow] = Field(max_length=50)
    notifications: list[Notification] = Field(max_length=50)
    mail_server: MailServerSettings | None
    oauth: OAuthSettings | None
    keys: list[Key] = Field(max_length=MAX_KEYS)
    people: list[Person] = Field(max_length=MAX_PEOPLE)
    secrets: SealedSecrets | None = None

    def bound_content(self) -> bytes:
        """Return what the encryption of the secrets is bound to: everything else."""
        return self.model_dump_json(exclude={"secrets"}).encode()


class _Head(BaseModel):
    """What tells the format and its version."""

    model_config = ConfigDict(strict=True)

    format: str
    version: int


def to_json(document: Document) -> bytes:
    """Return the file of a document."""
    return document.model_dump_json(indent=2).encode() + b"\n"


def looks_like_document(content: bytes) -> bool:
    """Return whether a file is JSON rather than CSV."""
    return content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def read(content: bytes) -> Document | Refusal:
    """Return the document in a file, or what is wrong with it."""
    if len(content) > MAX_BYTES:
        return Refusal("text", gettext("The file is too large for the export of a tenant."))
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        head = _Head.model_validate_json(content)
    except ValidationError:
        head = _Head(format="", version=0)
    if head.format != FORMAT:
        return Refusal("text", gettext("This file is not the export of a tenant, or it is damaged."))
    if head.version > VERSION:
        text = gettext("This file was written by a newer version of the portal. Upgrade this portal first.")
        return Refusal("text", text)
    try:
        return Document.model_validate_json(content)
    except ValidationError as error:
        return Refusal("text", _sentence(error))


def _sentence(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = " / ".join(str(part)[:80] for part in first["loc"]) or "1"
    return gettext("The file is not valid at “%(place)s”: %(reason)s.", place=place, reason=first["msg"])
