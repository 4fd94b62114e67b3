"""Tenants."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import CheckConstraint, Computed, Index, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.audited import Audited
from portal.extensions import Base


class Tenant(Audited, Base):
    """A customer of the PBX, known to it by a SIP domain."""

    __tablename__ = "tenants"
    __table_args__ = (
        Index("ix_tenants_grams", "grams", postgresql_using="gin"),
        CheckConstraint("name <> ''", name="name_not_empty"),
        CheckConstraint("storm_limit BETWEEN 1 AND 1000", name="storm_limit_in_range"),
        CheckConstraint("storm_minutes BETWEEN 1 AND 60", name="storm_minutes_in_range"),
        CheckConstraint("mail_colour ~ '^#[0-9a-f]{6}$'", name="mail_colour_hexadecimal"),
        CheckConstraint("domain <> '' AND domain = lower(domain)", name="domain_lower_case"),
    )
    audited_as = "tenant"
    audited_fields = (
        "name",
        "domain",
        "time_zone",
        "locale",
        "sender_name",
        "mail_colour",
        "mail_footer",
        "reply_to",
        "storm_limit",
        "storm_minutes",
    )
    audited_states: ClassVar = {"suspended_at": ("suspended", "resumed")}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    domain: Mapped[str] = mapped_column(unique=True)
    time_zone: Mapped[str] = mapped_column(default="UTC")
    locale: Mapped[str] = mapped_column(default="en")
    sender_name: Mapped[str | None]
    reply_to: Mapped[str | None]
    mail_colour: Mapped[str | None]
    mail_footer: Mapped[str | None]
    storm_limit: Mapped[int] = mapped_column(default=10, server_default="10")
    storm_minutes: Mapped[int] = mapped_column(default=5, server_default="5")
    suspended_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # For the search: all that stands in the name or the domain and is up to three characters long.
    grams: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), Computed("grams(name, domain)", persisted=True), deferred=True
    )

    @property
    def mail_name(self) -> str:
        """The name that its mails come from and speak of."""
        return self.sender_name or self.name

    @property
    def is_suspended(self) -> bool:
        """Whether the tenant's events are recorded without any mail."""
        return self.suspended_at is not None

    @property
    def status(self) -> str:
        """`active` or `suspended`."""
        return "suspended" if self.is_suspended else "active"

    @property
    def audited_subject(self) -> str:
        """The SIP domain."""
        return self.domain

    @property
    def audited_tenant_id(self) -> int:
        """The tenant itself."""
        return self.id
