"""The audit trail."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Index
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from portal.database import TenantOrSystemOwned
from portal.extensions import Base


class AuditEntry(TenantOrSystemOwned, Base):
    """What somebody did. The application may add entries and read them: Postgres lets it neither change nor delete any.

    `changes` holds by field [old value, new value], and for a secret only the word of what happened to it.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "actor", "id"), Index(None, "action", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    # No foreign key: what was done to a tenant outlives it.
    tenant_id: Mapped[int | None] = mapped_column()  # type: ignore[assignment]
    actor: Mapped[str]
    actor_account_id: Mapped[int | None]
    from_address: Mapped[str | None]
    action: Mapped[str]
    subject: Mapped[str]
    changes: Mapped[dict[str, Any]] = mapped_column(JSON)  # JSONB would forget the order of the form
