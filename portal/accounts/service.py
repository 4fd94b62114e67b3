"""Adding and changing accounts, and the sign-in policy."""

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from flask import current_app
from flask_babel import gettext, refresh
from flask_security import admin_change_password, hash_password
from sqlalchemy import func, select

from portal import config
from portal.accounts import rate_limits
from portal.accounts.models import ADMINISTRATOR, SYSTEM_ADMINISTRATOR, Account, Membership, Role, SignInPolicy
from portal.audit.log import record
from portal.errors import Refusal
from portal.extensions import db
from portal.web.forms import has_control_characters, normalize_email

POLICY_ID = 1  # the table has one row
ACCESS_LOCK: Final = 0x616363657373  # "access"; Postgres's advisory lock


def add(
    email: str,
    password: str | None,
    *,
    system_administrator: bool = False,
    tenant_id: int | None = None,
    role: str = ADMINISTRATOR,
) -> Account | Refusal:
    """Return the new or existing account, with the role added. An existing account keeps its password.

    A new account, or one that was only invited, needs a password that follows the password rules.
    """
    try:
        email = normalize_email(email).lower()
    except ValueError as error:
        return Refusal("email", str(error))
    account = find(email)
    if account is None or account.is_only_invited:
        hashed = hashed_password(email, password or "")
        if isinstance(hashed, Refusal):
            return hashed
        account = account or new(email)
        account.password = hashed
    if system_administrator:
        grant(account, SYSTEM_ADMINISTRATOR)
    if tenant_id is not None:
        grant(account, role, tenant_id)
    db.session.commit()
    return account


def new(email: str) -> Account:
    """Return a new account without a password, without committing it."""
    account = Account(email=email, active=True, fs_uniquifier=uuid4().hex, roles=[], memberships=[])
    db.session.add(account)
    return account


def grant(account: Account, role: str, tenant_id: int | None = None) -> None:
    """Give the account a role in a tenant, or in the system, without committing it. A role that it has stays."""
    if tenant_id is not None:
        if not any(membership.tenant_id == tenant_id for membership in account.memberships):
            account.memberships.append(Membership(tenant_id=tenant_id, role=role))
    elif not account.is_system_administrator:
        system_role = db.session.scalar(select(Role).where(Role.name == SYSTEM_ADMINISTRATOR))
        account.roles = [*account.roles, system_role or Role(name=SYSTEM_ADMINISTRATOR)]
        record("account.made_system_administrator", account.email)


def lock_access(*accounts: Account) -> None:
    """Wait until no other transaction changes who has access, and read these accounts again.

    So two requests at once cannot each remove the other's last administrator.
    """
    db.session.execute(select(func.pg_advisory_xact_lock(ACCESS_LOCK)))
    for account in accounts:
        db.session.refresh(
            account,
            ["email", "active", "deactivated_by_tenant_id", "password", "last_sign_in_at", "roles", "memberships"],
        )


def hashed_password(email: str, password: str) -> str | Refusal:
    """Return the hash of a new password, or which of the password rules it breaks."""
    errors, password = current_app.extensions["security"].password_util.validate(password, True, email=email)
    return Refusal("password", errors[0]) if errors else str(hash_password(password))


def find(email: str) -> Account | None:
    """Return the account with this email address, or None."""
    if has_control_characters(email):
        return None
    return db.session.scalar(select(Account).where(Account.email == email.strip().lower()))


def change_password(account: Account, password: str) -> Refusal | None:
    """Set the account's password and sign it out everywhere, unless the password breaks the rules."""
    errors, password = current_app.extensions["security"].password_util.validate(password, False, user=account)
    if errors:
        return Refusal("password", errors[0])
    admin_change_password(account, password)
    db.session.commit()
    return None


def accepts_password(account: Account) -> bool:
    """Return whether the account may have a password and sign in with it."""
    return account.break_glass or not config.current().sso_only


def has_usable_password(account: Account) -> bool:
    """Return whether the account has a password, and may use it."""
    return bool(account.password) and accepts_password(account)


def set_break_glass(account: Account, break_glass: bool) -> Refusal | None:
    """Let the account use its password although `SSO_ONLY` is on, or no longer. The last such account stays one."""
    if break_glass and not account.password:
        return Refusal("password", gettext("A break-glass account needs a password. Set one first."))
    if not break_glass and config.current().sso_only and break_glass_accounts() == [account]:
        return Refusal("", gettext("This is the last break-glass account. Mark another one first."))
    account.break_glass = break_glass
    db.session.commit()
    return None


def break_glass_accounts() -> Sequence[Account]:
    """Return the active accounts that may use their passwords although `SSO_ONLY` is on."""
    query = select(Account).where(Account.break_glass, Account.active, func.coalesce(Account.password, "") != "")
    return db.session.scalars(query.order_by(Account.email)).all()


def unlock(account: Account) -> None:
    """Start the account's rate limits again."""
    rate_limits.clear(account.email)
    record("account.unlocked", account.email)
    db.session.commit()


def email_of(uniquifier: str | None) -> str:
    """Return the email address of the account that Flask-Security knows by this value, or ""."""
    return db.session.scalar(select(Account.email).where(Account.fs_uniquifier == uniquifier)) or ""


def set_language(account: Account, language: str | None) -> None:
    """Save the language in which the account reads the portal. None is the browser's language."""
    account.language = language
    db.session.commit()
    refresh()


def set_name(account: Account, name: str) -> None:
    """Save the name of the account's owner."""
    account.name = name
    db.session.commit()


def requires_two_factor() -> bool:
    """Return whether all accounts must use two-factor authentication."""
    required = select(SignInPolicy.two_factor_required).where(SignInPolicy.id == POLICY_ID)
    return bool(db.session.connection().scalar(required))


def require_two_factor(required: bool) -> None:
    """Require two-factor authentication of all accounts, or leave it to them."""
    db.session.merge(SignInPolicy(id=POLICY_ID, two_factor_required=required))
    db.session.commit()
