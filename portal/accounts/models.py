"""Accounts, their roles and tenants, their sessions, rate limits and the sign-in policy."""

from datetime import datetime
from typing import ClassVar

from flask_security import RoleMixin, UserMixin
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    LargeBinary,
    Table,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal import crypto
from portal.audit.mixin import Audited
from portal.extensions import Base, db

SYSTEM_ADMINISTRATOR = "system_administrator"  # a role in the whole system
ADMINISTRATOR, VIEWER = "administrator", "viewer"  # the roles in a tenant

account_roles = Table(
    "account_roles",
    Base.metadata,
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)


class Role(Base, RoleMixin):
    """A role in the whole system. Roles in a tenant are in `Membership`."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


def totp_secret_context(account_id: int) -> str:
    """Return the context to which the encryption of an account's authenticator secret is bound."""
    return f"accounts.totp_secret:{account_id}"


class Account(Audited, Base, UserMixin):
    """A person who signs in with an email address and a password, and with a code if two-factor authentication is on.

    An invited account has no password until it accepts its invitation.

    Names that begin with `tf_` and `mf_` are Flask-Security's.
    """

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email_lower_case"),)
    audited_as = "account"
    audited_fields = ("email", "name", "language", "break_glass")

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str | None]
    password: Mapped[str | None]
    last_sign_in_at: Mapped[datetime | None]
    active: Mapped[bool] = mapped_column(default=True)
    # The tenant whose administrators have deactivated it, and may reactivate it; None: the system's have.
    deactivated_by_tenant_id: Mapped[int | None] = mapped_column(ForeignKey("tenants.id", ondelete="SET NULL"))
    language: Mapped[str | None]  # the language of the pages; None is the browser's
    # May use its password although `SSO_ONLY` is on: for the day on which the provider fails.
    break_glass: Mapped[bool] = mapped_column(default=False, server_default=false())
    fs_uniquifier: Mapped[str] = mapped_column(unique=True)
    totp_secret_encrypted: Mapped[bytes | None] = mapped_column(
        info=crypto.encrypted(lambda row: totp_secret_context(row.id))
    )
    # The time step of the last code (RFC 6238, section 5.2).
    totp_counter: Mapped[int | None] = mapped_column(BigInteger)
    mf_recovery_codes: Mapped[list[bytes]] = mapped_column(  # type: ignore[assignment]
        "recovery_code_hashes", ARRAY(LargeBinary), server_default=text("'{}'")
    )
    roles: Mapped[list[Role]] = relationship(secondary=account_roles)  # type: ignore[assignment]
    memberships: Mapped[list["Membership"]] = relationship(back_populates="account", cascade="all, delete-orphan")

    @property
    def is_system_administrator(self) -> bool:
        """Whether the account administers the system and all tenants."""
        return bool(self.has_role(SYSTEM_ADMINISTRATOR))

    @property
    def audited_subject(self) -> str:
        """The email address."""
        return self.email

    def role_in(self, tenant_id: int) -> str | None:
        """Return the account's role in the tenant, or None. System administrators administer all tenants."""
        if self.is_system_administrator:
            return ADMINISTRATOR
        return next((member.role for member in self.memberships if member.tenant_id == tenant_id), None)

    def administers(self, tenant_id: int) -> bool:
        """Return whether the account may change the tenant's settings. Viewers only read."""
        return self.role_in(tenant_id) == ADMINISTRATOR

    @property
    def is_only_invited(self) -> bool:
        """Whether nobody has used the account yet, and it has no role: only invitations for its address."""
        return not (self.password or self.last_sign_in_at or self.memberships or self.roles)

    @property
    def has_two_factor(self) -> bool:
        """Whether signing in requires a code."""
        return self.totp_secret_encrypted is not None

    @property
    def tf_primary_method(self) -> str | None:  # type: ignore[override]
        """The second factor in Flask-Security's terms."""
        return "authenticator" if self.has_two_factor else None

    @property
    def tf_totp_secret(self) -> str | None:
        """The decrypted secret of the authenticator app, or None."""
        if self.totp_secret_encrypted is None:
            return None
        return crypto.keyring().decrypt(self.totp_secret_encrypted, totp_secret_context(self.id))

    @tf_totp_secret.setter
    def tf_totp_secret(self, value: str | None) -> None:
        self.totp_secret_encrypted = crypto.keyring().encrypt(value, totp_secret_context(self.id)) if value else None


class Membership(Audited, Base):
    """An account's role in a tenant."""

    __tablename__ = "memberships"
    __table_args__ = (CheckConstraint("role IN ('administrator', 'viewer')", name="role_known"),)
    audited_as = "membership"
    audited_fields = ("role",)

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(default=ADMINISTRATOR, server_default=ADMINISTRATOR)
    account: Mapped[Account] = relationship(back_populates="memberships")

    @property
    def audited_subject(self) -> str:
        """The email address of the member."""
        account = self.account or db.session.get_one(Account, self.account_id)  # a deleted one has lost its account
        return account.email


class AccountIdentity(Base):
    """The person at an OpenID provider to whom an account is bound."""

    __tablename__ = "account_identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"), UniqueConstraint("account_id", "issuer"))

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    issuer: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EmailChange(Base):
    """A new email address of an account, until the owners of both addresses have confirmed it."""

    __tablename__ = "email_changes"
    __table_args__ = (CheckConstraint("new_email = lower(new_email)", name="email_lower_case"),)

    account_id: Mapped[int] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    new_email: Mapped[str]
    old_token_hash: Mapped[bytes] = mapped_column(unique=True)
    new_token_hash: Mapped[bytes] = mapped_column(unique=True)
    old_confirmed: Mapped[bool] = mapped_column(default=False)
    new_confirmed: Mapped[bool] = mapped_column(default=False)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    account: Mapped[Account] = relationship()


class AccountSession(Base):
    """A browser that is signed in. Its cookie holds the token whose hash is stored here."""

    __tablename__ = "account_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    remembered: Mapped[bool]
    ip_address: Mapped[str]
    browser: Mapped[str]
    account: Mapped[Account] = relationship()


def kept_form_context(account_id: int) -> str:
    """Return the context to which the encryption of a kept form is bound."""
    return f"kept_forms.values:{account_id}"


class KeptForm(Base):
    """A form that arrived after its session had ended, until the account signs in again and saves it."""

    __tablename__ = "kept_forms"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    path: Mapped[str]
    values_encrypted: Mapped[bytes] = mapped_column(
        info=crypto.encrypted(lambda row: kept_form_context(row.account_id))
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class RateLimit(Base):
    """A leaky bucket of a rate limit: how full it is, as the time at which it will be empty."""

    __tablename__ = "rate_limits"

    # Hashed, because people type passwords into the field of the email address.
    subject_hash: Mapped[bytes] = mapped_column(primary_key=True)
    empty_at: Mapped[datetime] = mapped_column(index=True)


class SignInPolicy(Audited, Base):
    """What system administrators require of all accounts: one row, or none if nothing was ever required."""

    __tablename__ = "sign_in_policy"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    audited_as = "sign_in_policy"
    audited_fields = ("two_factor_required",)
    audited_verbs: ClassVar = {"added": "changed"}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    two_factor_required: Mapped[bool]
