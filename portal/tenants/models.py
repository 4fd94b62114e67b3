"""Tenants."""

from datetime import datetime

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from portal.extensions import Base


class Tenant(Base):
    """A customer of the PBX, known to it by a SIP domain."""

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("name <> ''", name="name_not_empty"),
        CheckConstraint("domain <> '' AND domain = lower(domain)", name="domain_lower_case"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    domain: Mapped[str] = mapped_column(unique=True)
    time_zone: Mapped[str] = mapped_column(default="UTC")
    locale: Mapped[str] = mapped_column(default="en")
    sender_name: Mapped[str | None]
    reply_to: Mapped[str | None]
    suspended_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def is_suspended(self) -> bool:
        """Whether the tenant's events are recorded without any mail."""
        return self.suspended_at is not None

    @property
    def status(self) -> str:
        """`active` or `suspended`."""
        return "suspended" if self.is_suspended else "active"
