"""The database table of email templates."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from portal.database.scope import TenantOwned
from portal.extensions import Base

MAX_SUBJECT_LENGTH = 200  # characters
MAX_BODY_LENGTH = 100_000  # bytes in UTF-8
MAX_MARKDOWN_LENGTH = 20_000  # bytes; the HTML generated from it is much longer


class MailTemplate(TenantOwned, Base):
    """One version of a tenant's template for an event type. It never changes; the setting refers to the one in use."""

    __tablename__ = "mail_templates"
    __table_args__ = (
        # Lists the versions of an event type in order; the foreign key of the settings refers to it.
        UniqueConstraint("tenant_id", "event_type", "id"),
        CheckConstraint(f"char_length(subject) BETWEEN 1 AND {MAX_SUBJECT_LENGTH}", name="subject_length"),
        CheckConstraint(f"octet_length(body) BETWEEN 1 AND {MAX_BODY_LENGTH}", name="body_size"),
        CheckConstraint("format IN ('markdown', 'html')", name="format_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)  # the key of the cache of compiled templates
    event_type: Mapped[str]
    format: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]  # the name in the audit trail
