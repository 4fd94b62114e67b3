"""API keys, and the requests that were rejected."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal import crypto
from portal.audit.mixin import Audited
from portal.database import clock
from portal.database.scope import TenantOrSystemOwned
from portal.extensions import Base
from portal.pbx.rejection_reasons import RejectionReason

EXPIRY_WARNING_PERIOD = timedelta(days=7)
LAST_ACTIVITY = "greatest(last_used_at, created_at)"  # when the key was last used, or issued


class KeyState(StrEnum):
    """Whether a key is valid at the moment, and what its owner should know about it."""

    ACTIVE = "active"
    UNUSED = "unused"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    REVOKED = "revoked"


def signing_secret_context(tenant_id: int | None) -> str:
    """Return the place to which encryption binds a tenant's signing secrets, current and previous ones."""
    return f"api_keys.signing_secret:{tenant_id or 'system'}"


ENCRYPTED = crypto.encrypted(lambda key: signing_secret_context(key.tenant_id))


class ApiKey(Audited, TenantOrSystemOwned, Base):
    """A key that reports events of one tenant, or of every tenant if `tenant_id` is NULL. Only its hash is stored.

    With a signing secret, requests must be signed; the previous secret is also accepted until it expires.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        Index(None, "tenant_id"),
        Index(
            "ix_api_keys_last_activity",
            text(LAST_ACTIVITY),
            postgresql_where=text("tenant_id IS NOT NULL AND revoked_at IS NULL"),
        ),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
        CheckConstraint(
            "(previous_secret_encrypted IS NULL) = (previous_secret_expires_at IS NULL)", name="previous_secret_expires"
        ),
    )
    audited_as = "key"
    audited_fields = ("name", "expires_at")
    audited_secrets = ("signing_secret_encrypted",)
    audited_states: ClassVar = {"revoked_at": ("revoked", "changed")}
    audited_verbs: ClassVar = {"added": "issued"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(server_default="PBX")
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    prefix: Mapped[str]
    signing_secret_encrypted: Mapped[bytes | None] = mapped_column(info=ENCRYPTED)
    previous_secret_encrypted: Mapped[bytes | None] = mapped_column(info=ENCRYPTED)
    previous_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_ip: Mapped[str | None]
    revoked_at: Mapped[datetime | None]

    @property
    def audited_subject(self) -> str:
        """What people tell keys apart by."""
        return f"{self.name} ({self.prefix}…)"

    @property
    def state(self) -> KeyState:
        """Its state now."""
        left = self.expires_at - clock.now() if self.expires_at else None
        if self.revoked_at:
            return KeyState.REVOKED
        if left is not None and left <= EXPIRY_WARNING_PERIOD:
            return KeyState.EXPIRING if left > timedelta() else KeyState.EXPIRED
        return KeyState.ACTIVE if self.last_used_at else KeyState.UNUSED

    @property
    def is_valid(self) -> bool:
        """Whether the key is accepted."""
        return self.state not in {KeyState.EXPIRED, KeyState.REVOKED}

    @property
    def previous_secret_is_valid(self) -> bool:
        """Whether the previous signing secret is still accepted."""
        return self.previous_secret_expires_at is not None and self.previous_secret_expires_at > clock.now()


def encrypt_signing_secret(secret: str, tenant_id: int | None) -> bytes:
    """Return a signing secret, encrypted for a key of the tenant, or of the system for None."""
    return crypto.keyring().encrypt(secret, signing_secret_context(tenant_id))


def decrypt_signing_secret(encrypted: bytes, tenant_id: int | None) -> str:
    """Return the signing secret of a key of the tenant, or of the system for None."""
    return crypto.keyring().decrypt(encrypted, signing_secret_context(tenant_id))


class RejectedRequest(TenantOrSystemOwned, Base):
    """The requests with one key that were rejected for the same reason in the same hour, and the last one's detail.

    They belong to the key's owner; without a known key they belong to the system. Nothing that was sent is stored.
    """

    __tablename__ = "rejected_requests"
    __table_args__ = (
        UniqueConstraint(
            "tenant_id",
            "api_key_id",
            "reason",
            "event_type",
            "hour",
            name="uq_rejected_requests_group",
            postgresql_nulls_not_distinct=True,
        ),
        Index(None, "hour"),
        CheckConstraint("count > 0", name="count_is_positive"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    api_key_id: Mapped[int | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    reason: Mapped[str]
    event_type: Mapped[str | None]
    hour: Mapped[datetime]
    count: Mapped[int]
    last_request_at: Mapped[datetime]
    ip_address: Mapped[str | None]
    detail: Mapped[str | None]
    key: Mapped[ApiKey | None] = relationship(lazy="joined")

    @property
    def rejection_reason(self) -> RejectionReason:
        """The reason with its status, title and advice."""
        return RejectionReason[self.reason.upper()]
