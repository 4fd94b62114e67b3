"""The table of invitations."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import clock
from portal.database.scope import TenantOrSystemOwned
from portal.extensions import Base


class Invitation(TenantOrSystemOwned, Base):
    """An email address that may get a role in a tenant, or in the system, until its owner accepts or it expires.

    It is about an email address and not an account, so that an account that changes its address does not take it along.
    """

    __tablename__ = "invitations"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email", postgresql_nulls_not_distinct=True),
        Index("ix_invitations_due", "id", postgresql_where=text("is_due")),
        CheckConstraint("email = lower(email)", name="email_lower_case"),
        CheckConstraint(
            "(tenant_id IS NULL) = (role = 'system_administrator') "
            "AND role IN ('administrator', 'viewer', 'system_administrator')",
            name="role_fits",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(index=True)
    role: Mapped[str]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    invited_by: Mapped[str]  # the name that the invited person reads
    invited_by_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    # An import has added it: a worker makes its link and emails it.
    is_due: Mapped[bool] = mapped_column(default=False, server_default=false())

    @property
    def is_expired(self) -> bool:
        """Whether it can no longer be accepted."""
        return self.expires_at <= clock.now()
