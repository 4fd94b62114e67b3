"""The table of tenants."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.mixin import Audited
from portal.extensions import Base


class Tenant(Audited, Base):
    """A customer of the PBX, identified by its SIP domain."""

    __tablename__ = "tenants"
    __table_args__ = (
        Index("ix_tenants_search_trigrams", "search_trigrams", postgresql_using="gin"),
        Index("ix_tenants_name", text("lower(name)"), "domain"),
        Index("ix_tenants_due", "deletion_requested_at", postgresql_where=text("deletion_requested_at IS NOT NULL")),
        CheckConstraint("name <> ''", name="name_not_empty"),
        CheckConstraint("storm_limit BETWEEN 1 AND 1000", name="storm_limit_in_range"),
        CheckConstraint("storm_minutes BETWEEN 1 AND 60", name="storm_minutes_in_range"),
        CheckConstraint("brand_color ~ '^#[0-9a-f]{6}$'", name="brand_color_is_hex"),
        CheckConstraint("domain <> '' AND domain = lower(domain)", name="domain_lower_case"),
    )
    audited_as = "tenant"
    audited_fields = (
        "name",
        "domain",
        "realm",
        "time_zone",
        "language",
        "sender_name",
        "brand_color",
        "email_footer",
        "reply_to",
        "storm_limit",
        "storm_minutes",
        "alerts_on_silence",
    )
    audited_states: ClassVar = {"suspended_at": ("suspended", "resumed")}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    domain: Mapped[str] = mapped_column(unique=True)
    realm: Mapped[str | None]  # with which the PBX challenges softphones; None: the SIP domain
    time_zone: Mapped[str] = mapped_column(default="UTC")
    language: Mapped[str] = mapped_column(default="en")
    sender_name: Mapped[str | None]
    reply_to: Mapped[str | None]
    brand_color: Mapped[str | None]
    email_footer: Mapped[str | None]
    storm_limit: Mapped[int] = mapped_column(default=10, server_default="10")
    storm_minutes: Mapped[int] = mapped_column(default=5, server_default="5")
    alerts_on_silence: Mapped[bool] = mapped_column(default=False, server_default=false())
    suspended_at: Mapped[datetime | None]
    deletion_requested_at: Mapped[datetime | None]  # since when it is being deleted
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # For the search: every part of the name and the domain that has up to three characters.
    search_trigrams: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), Computed("trigrams(name, domain)", persisted=True), deferred=True
    )

    @property
    def display_name(self) -> str:
        """The name that is shown as the sender of its emails and used in their text."""
        return self.sender_name or self.name

    @property
    def is_suspended(self) -> bool:
        """Whether the tenant's email is off: its events are recorded, but nothing is sent."""
        return self.suspended_at is not None

    @property
    def audited_subject(self) -> str:
        """The SIP domain."""
        return self.domain

    @property
    def audited_tenant_id(self) -> int:
        """The tenant's own id."""
        return self.id


class SettingsRevision(Base):
    """How often a tenant's settings have changed, or those of the system where `tenant_id` is NULL.

    Triggers count each transaction that changes how events are emailed: see `portal.deliveries.plan`.
    """

    __tablename__ = "settings_revisions"
    __table_args__ = (UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),)

    tenant_id: Mapped[int | None] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(BigInteger)
    __mapper_args__ = {"primary_key": [tenant_id]}  # noqa: RUF012 (SQLAlchemy's way)
