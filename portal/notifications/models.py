"""The database tables of recipients and of the notification settings of each event type."""

from datetime import UTC, datetime, time
from typing import ClassVar, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.mixin import Audited
from portal.database import clock
from portal.database.scope import TenantOwned
from portal.extensions import Base
from portal.notifications.decision import QuietHours, RecipientRules

INDEFINITELY: Final = datetime(9999, 1, 1, tzinfo=UTC)  # the end of a pause that someone has to end


class Recipient(TenantOwned, Base):
    """One of the tenant's "Emails of Recipients". It gets all events, also of new types, except the excluded ones.

    Queues are numbers or names; none means all of them. For the columns of quiet hours see `QuietHours`.
    """

    __tablename__ = "recipients"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email"),
        CheckConstraint("email <> ''", name="email_not_empty"),
        CheckConstraint("quiet_days <@ '{0,1,2,3,4,5,6}'", name="quiet_days_known"),
        CheckConstraint(
            "(quiet_from IS NULL) = (quiet_days = '{}') AND (quiet_until IS NULL) = (quiet_days = '{}')",
            name="quiet_hours_complete",
        ),
        Index(None, "email"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    excluded_event_types: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")
    paused_until: Mapped[datetime | None]
    queues: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")
    quiet_days: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger), default=list, server_default="{}")
    quiet_from: Mapped[time | None]
    quiet_until: Mapped[time | None]
    urgent_event_types: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")

    @property
    def is_paused(self) -> bool:
        """Whether it gets no emails at the moment."""
        return self.paused_until is not None and self.paused_until > clock.now()

    @property
    def is_paused_indefinitely(self) -> bool:
        """Whether it gets no emails until someone ends the pause."""
        return self.paused_until is not None and self.paused_until >= INDEFINITELY

    @property
    def quiet_hours(self) -> QuietHours | None:
        """Its quiet hours, if it has any."""
        if self.quiet_from is None or self.quiet_until is None:
            return None
        return QuietHours(frozenset(self.quiet_days), self.quiet_from, self.quiet_until)

    @property
    def rules(self) -> RecipientRules:
        """What limits the emails to it, besides the excluded event types and a pause."""
        return RecipientRules(self.email, self.queues, self.quiet_hours, self.urgent_event_types)


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
    audited_verbs: ClassVar = {"added": "changed"}

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=False)
    audience: Mapped[str] = mapped_column(default="both")
    template_id: Mapped[UUID | None]

    @property
    def audited_subject(self) -> str:
        """The event type."""
        return self.event_type
