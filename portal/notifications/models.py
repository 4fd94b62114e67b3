"""The database tables of recipients and of the notification settings of each event type."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.mixin import Audited
from portal.database import clock
from portal.database.scope import TenantOwned
from portal.extensions import Base


class Recipient(TenantOwned, Base):
    """One of the tenant's "Emails of Recipients". It gets all events, also of new types, except the excluded ones."""

    __tablename__ = "recipients"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email"),
        Index(None, "email"),
        CheckConstraint("email <> ''", name="email_not_empty"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    excluded_event_types: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")
    paused_until: Mapped[datetime | None]

    @property
    def is_paused(self) -> bool:
        """Whether it gets no emails at the moment."""
        return self.paused_until is not None and self.paused_until > clock.now()


class NotificationSetting(Audited, TenantOwned, Base):
    """Whether an event type is emailed for a tenant, to whom, and with which template. Without a row it is not.

    `template_id` is the version in use of the tenant's own template; NULL means the default.
    """

    __tablename__ = "notification_settings"
    __table_args__ = (
        Index(None, "enabled", "tenant_id"),
        CheckConstraint("audience IN ('both', 'recipients', 'user')", name="audience_known"),
        ForeignKeyConstraint(
            ["tenant_id", "event_type", "template_id"],
            ["mail_templates.tenant_id", "mail_templates.event_type", "mail_templates.id"],
        ),
    )
    audited_as = "notification"
    audited_fields = ("enabled", "audience")

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=False)
    audience: Mapped[str] = mapped_column(default="both")
    template_id: Mapped[UUID | None]

    @property
    def audited_subject(self) -> str:
        """The event type."""
        return self.event_type
