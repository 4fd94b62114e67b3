"""The table of the audit trail."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Index
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from portal.database import clock
from portal.database.scope import TenantOrSystemOwned
from portal.extensions import Base


class AuditEntry(TenantOrSystemOwned, Base):
    """One action. Postgres lets the application add entries and read them, but neither change nor delete them.

    `changes` maps a field to [old value, new value], and a secret to "set", "changed" or "removed".
    """

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "actor", "id"), Index(None, "action", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    created_at: Mapped[datetime] = mapped_column(default=clock.now)
    # No foreign key: the entries about a tenant outlive it.
    tenant_id: Mapped[int | None] = mapped_column()  # type: ignore[assignment]
    actor: Mapped[str]
    actor_account_id: Mapped[int | None]
    ip_address: Mapped[str | None]
    action: Mapped[str]
    subject: Mapped[str]
    changes: Mapped[dict[str, Any]] = mapped_column(JSON)  # JSONB would forget the order of the form
