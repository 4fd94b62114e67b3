"""Who gets a tenant's notifications, and which events send any."""

from datetime import UTC, datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.audited import Audited
from portal.database import TenantOwned
from portal.extensions import Base


class Recipient(TenantOwned, Base):
    """One of the tenant's "Emails of Recipients". It gets every event that is not named, also those of later kinds."""

    __tablename__ = "recipients"
    __table_args__ = (
        UniqueConstraint("tenant_id", "address"),
        CheckConstraint("address <> ''", name="address_not_empty"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str]
    excluded_events: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")
    paused_until: Mapped[datetime | None]

    @property
    def is_paused(self) -> bool:
        """Whether it gets nothing just now."""
        return self.paused_until is not None and self.paused_until > datetime.now(UTC)


class NotificationSwitch(Audited, TenantOwned, Base):
    """Whether an event kind sends mail for a tenant, and to whom. No row: it does not."""

    __tablename__ = "notification_switches"
    __table_args__ = (CheckConstraint("audience IN ('both', 'recipients', 'user')", name="audience_known"),)
    audited_as = "notification"
    audited_fields = ("enabled", "audience")

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=False)
    audience: Mapped[str] = mapped_column(default="both")

    @property
    def audited_subject(self) -> str:
        """The type of its event."""
        return self.event_type
