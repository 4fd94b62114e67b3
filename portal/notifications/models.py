"""Who gets a tenant's notifications, which events send any, and in which words."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

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


LONGEST_SUBJECT = 200  # characters
LARGEST_BODY = 100_000  # bytes in UTF-8
LARGEST_MARKDOWN = 20_000  # which becomes much more HTML


class MailTemplate(TenantOwned, Base):
    """One version of an event kind's mail in a tenant's own words, never changed. The switch names the one in use."""

    __tablename__ = "mail_templates"
    __table_args__ = (
        # The versions of an event type in their order, and what a switch may name: a version of its own.
        UniqueConstraint("tenant_id", "event_type", "id"),
        CheckConstraint(f"char_length(subject) BETWEEN 1 AND {LONGEST_SUBJECT}", name="subject_fits"),
        CheckConstraint(f"octet_length(body) BETWEEN 1 AND {LARGEST_BODY}", name="body_fits"),
        CheckConstraint("format IN ('markdown', 'html')", name="format_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)  # by which processes keep what they compiled
    event_type: Mapped[str]
    format: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]  # as the audit trail names people


class NotificationSwitch(Audited, TenantOwned, Base):
    """Whether an event kind sends mail for a tenant, to whom, and in which words. No row: it does not.

    `template_id` is the version in use of the tenant's own template, NULL the default.
    """

    __tablename__ = "notification_switches"
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
        """The type of its event."""
        return self.event_type
