"""Accounts, their roles, the tenants that they administer, and what signing in leaves behind."""

from datetime import datetime
from typing import ClassVar

from flask_security import RoleMixin, UserMixin
from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, LargeBinary, Table, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal import crypto
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


def totp_place(account_id: int) -> str:
    """Return the place to which an account's secret of the second factor is bound."""
    return f"accounts.totp_secret:{account_id}"


class Account(Audited, Base, UserMixin):
    """A person who signs in with an e-mail address and a password, and a code where the second factor is set up.

    The names that begin with `tf_` and `mf_` are Flask-Security's.
    """

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email_lower_case"),)
    audited_as = "account"
    audited_fields = ("email", "active", "locale")
    audited_secrets = ("totp_secret_encrypted",)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True)
    locale: Mapped[str | None]  # the language of the pages; None is the browser's
    fs_uniquifier: Mapped[str] = mapped_column(unique=True)
    totp_secret_encrypted: Mapped[bytes | None] = mapped_column(info=crypto.encrypted(lambda row: totp_place(row.id)))
    totp_counter: Mapped[int | None] = mapped_column(
        BigInteger
    )  # the time step of the last code (RFC 6238, section 5.2)
    mf_recovery_codes: Mapped[list[bytes]] = mapped_column(  # type: ignore[assignment]
        "recovery_code_hashes", ARRAY(LargeBinary), server_default=text("'{}'")
    )
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

    @property
    def has_two_factor(self) -> bool:
        """Whether signing in takes a code."""
        return self.totp_secret_encrypted is not None

    @property
    def tf_primary_method(self) -> str | None:  # type: ignore[override]
        """Flask-Security's word for the second factor."""
        return "authenticator" if self.has_two_factor else None

    @property
    def tf_totp_secret(self) -> str | None:
        """The secret of the authenticator in clear text, or None."""
        if self.totp_secret_encrypted is None:
            return None
        return crypto.keyring().decrypt(self.totp_secret_encrypted, totp_place(self.id))

    @tf_totp_secret.setter
    def tf_totp_secret(self, value: str | None) -> None:
        self.totp_secret_encrypted = crypto.keyring().encrypt(value, totp_place(self.id)) if value else None


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


class AccountSession(Base):
    """A browser in which somebody is signed in. Its cookie carries the key of which the hash stands here."""

    __tablename__ = "account_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    began_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    remembered: Mapped[bool]
    address: Mapped[str]
    browser: Mapped[str]


class Attempts(Base):
    """How full the measure of attempts is, by account or address: it runs empty by itself until `empty_at`."""

    __tablename__ = "attempts"

    # A digest: people type passwords where the address belongs.
    subject: Mapped[bytes] = mapped_column(primary_key=True)
    empty_at: Mapped[datetime] = mapped_column(index=True)


class SignInPolicy(Audited, Base):
    """What the system administrator asks of everybody who signs in: one row, or none as long as nothing is asked."""

    __tablename__ = "sign_in_policy"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    audited_as = "sign_in_policy"
    audited_fields = ("two_factor_required",)
    audited_verbs: ClassVar = {"added": "changed"}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    two_factor_required: Mapped[bool]
