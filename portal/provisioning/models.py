"""The database table of one-time links that set up a softphone."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from portal import crypto
from portal.database.scope import TenantOwned
from portal.extensions import Base


def encryption_context(tenant_id: int) -> str:
    """Return the context to which the encrypted SIP account of a tenant's token is bound."""
    return f"provisioning_tokens.sip_account:{tenant_id}"


class ProvisioningToken(TenantOwned, Base):
    """A link that a softphone can fetch once. The SIP account is erased when it is fetched."""

    __tablename__ = "provisioning_tokens"
    __table_args__ = (
        Index(None, "tenant_id", "address_of_record"),
        Index(None, "expires_at", postgresql_where=text("sip_account_encrypted IS NOT NULL")),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        CheckConstraint("spent_at IS NULL OR sip_account_encrypted IS NULL", name="spent_sip_account_erased"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    address_of_record: Mapped[str]
    event_id: Mapped[UUID]  # together with the audience: the email for which it was issued
    audience: Mapped[str]
    sip_account_encrypted: Mapped[bytes | None] = mapped_column(
        info=crypto.encrypted(lambda row: encryption_context(row.tenant_id))
    )
    expires_at: Mapped[datetime]
    spent_at: Mapped[datetime | None]
