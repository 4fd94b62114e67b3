"""Keys of PBXs, and the calls that were rejected."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal import crypto
from portal.audit.audited import Audited
from portal.database import TenantOrSystemOwned
from portal.extensions import Base
from portal.pbx.reasons import Reason

SOON = timedelta(days=7)
QUIET_SINCE = "greatest(last_used_at, created_at)"  # when a key was used last, or issued


class KeyState(StrEnum):
    """What a key is good for at this moment."""

    LIVE = "live"
    UNUSED = "unused"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    REVOKED = "revoked"


def secret_place(tenant_id: int | None) -> str:
    """Return the place to which a tenant's signing secrets are bound, the current ones and those before them."""
    return f"pbx_keys.signing_secret:{tenant_id or 'system'}"


SEALED = crypto.encrypted(lambda key: secret_place(key.tenant_id))


class PbxKey(Audited, TenantOrSystemOwned, Base):
    """A key that reports events of one tenant, or of every tenant where `tenant_id` is NULL. Only its hash is kept.

    One with a signing secret accepts signed calls only; the secret before it counts too until its end.
    """

    __tablename__ = "pbx_keys"
    __table_args__ = (
        Index(None, "tenant_id"),
        Index(
            "ix_pbx_keys_quiet_since",
            text(QUIET_SINCE),
            postgresql_where=text("tenant_id IS NOT NULL AND revoked_at IS NULL"),
        ),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
        CheckConstraint(
            "(previous_secret_encrypted IS NULL) = (previous_secret_until IS NULL)", name="previous_secret_ends"
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
    signing_secret_encrypted: Mapped[bytes | None] = mapped_column(info=SEALED)
    previous_secret_encrypted: Mapped[bytes | None] = mapped_column(info=SEALED)
    previous_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_from: Mapped[str | None]
    revoked_at: Mapped[datetime | None]

    @property
    def audited_subject(self) -> str:
        """How people tell keys apart."""
        return f"{self.name} ({self.prefix}…)"

    @property
    def state(self) -> KeyState:
        """What the key is good for now."""
        left = self.expires_at - datetime.now(UTC) if self.expires_at else None
        if self.revoked_at:
            return KeyState.REVOKED
        if left is not None and left <= SOON:
            return KeyState.EXPIRING if left > timedelta() else KeyState.EXPIRED
        return KeyState.LIVE if self.last_used_at else KeyState.UNUSED

    @property
    def is_live(self) -> bool:
        """Whether the key is accepted."""
        return self.state not in {KeyState.EXPIRED, KeyState.REVOKED}

    @property
    def earlier_secret_counts(self) -> bool:
        """Whether the signing secret before the current one is still accepted."""
        return self.previous_secret_until is not None and self.previous_secret_until > datetime.now(UTC)


def sealed(secret: str, tenant_id: int | None) -> bytes:
    """Return a signing secret encrypted for a key of the tenant, or of the system."""
    return crypto.keyring().encrypt(secret, secret_place(tenant_id))


def opened(stored: bytes, tenant_id: int | None) -> str:
    """Return a signing secret in clear text."""
    return crypto.keyring().decrypt(stored, secret_place(tenant_id))


class RejectedCall(TenantOrSystemOwned, Base):
    """The calls of a key that were rejected for the same reason in the same hour, and what was said to the last one.

    They belong to the key's owner; those without a known key to the system. Nothing of what was sent is kept.
    """

    __tablename__ = "rejected_calls"
    __table_args__ = (
        UniqueConstraint(
            "tenant_id",
            "key_id",
            "reason",
            "event_type",
            "hour",
            name="uq_rejected_calls_fold",
            postgresql_nulls_not_distinct=True,
        ),
        Index(None, "hour"),
        CheckConstraint("count > 0", name="count_is_positive"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key_id: Mapped[int | None] = mapped_column(ForeignKey("pbx_keys.id", ondelete="CASCADE"))
    reason: Mapped[str]
    event_type: Mapped[str | None]
    hour: Mapped[datetime]
    count: Mapped[int]
    last_at: Mapped[datetime]
    address: Mapped[str | None]
    detail: Mapped[str | None]
    key: Mapped[PbxKey | None] = relationship(lazy="joined")

    @property
    def why(self) -> Reason:
        """The reason."""
        return Reason(self.reason)
