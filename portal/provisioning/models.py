"""One-time addresses that sign a softphone in."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from portal import crypto
from portal.database import TenantOwned
from portal.extensions import Base


def place(tenant_id: int) -> str:
    """Return what the line of a tenant's token is bound to."""
    return f"provisioning_tokens.line:{tenant_id}"


class ProvisioningToken(TenantOwned, Base):
    """An address that a softphone may fetch once. What it fetches is erased with the fetch."""

    __tablename__ = "provisioning_tokens"
    __table_args__ = (
        Index(None, "tenant_id", "address_of_record"),
        Index(None, "expires_at", postgresql_where=text("line_encrypted IS NOT NULL")),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        CheckConstraint("spent_at IS NULL OR line_encrypted IS NULL", name="spent_line_erased"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    address_of_record: Mapped[str]
    event_id: Mapped[UUID]  # whose mail it was made for, with the audience
    audience: Mapped[str]
    line_encrypted: Mapped[bytes | None] = mapped_column(info=crypto.encrypted(lambda row: place(row.tenant_id)))
    expires_at: Mapped[datetime]
    spent_at: Mapped[datetime | None]
