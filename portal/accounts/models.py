"""Accounts, their roles, and the tenants that they administer."""

from flask_security import RoleMixin, UserMixin
from sqlalchemy import CheckConstraint, Column, ForeignKey, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.audit.audited import Audited
from portal.extensions import Base, db

SYSTEM_ADMINISTRATOR = "system_administrator"

account_roles = Table(
    "account_roles",
    Base.metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)


class Role(Base, RoleMixin):
    """A role that an account has everywhere. Administering a tenant is no such role: it is a `Membership`."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Account(Audited, Base, UserMixin):
    """A person who signs in with an e-mail address and a password."""

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email_lower_case"),)
    audited_as = "account"
    audited_fields = ("email", "active")

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True)
    fs_uniquifier: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[list[Role]] = relationship(secondary=account_roles)  # type: ignore[assignment]
    memberships: Mapped[list["Membership"]] = relationship(back_populates="account", cascade="all, delete-orphan")

    @property
    def is_system_administrator(self) -> bool:
        """Whether the account runs the PBX for all tenants."""
        return bool(self.has_role(SYSTEM_ADMINISTRATOR))

    @property
    def audited_subject(self) -> str:
        """The e-mail address."""
        return self.email

    def may_enter(self, tenant_id: int) -> bool:
        """Return whether the account may work in the tenant's workspace."""
        return self.is_system_administrator or any(each.tenant_id == tenant_id for each in self.memberships)


class Membership(Audited, Base):
    """An account administers a tenant."""

    __tablename__ = "memberships"
    audited_as = "membership"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True, index=True)
    account: Mapped[Account] = relationship(back_populates="memberships")

    @property
    def audited_subject(self) -> str:
        """Who administers."""
        account = self.account or db.session.get_one(Account, self.account_id)  # an ended one has lost its account
        return account.email
