"""Making accounts."""

from uuid import uuid4

from flask import current_app
from flask_security import hash_password
from sqlalchemy import select

from portal.accounts.models import SYSTEM_ADMINISTRATOR, Account, Membership, Role
from portal.audit.entries import note
from portal.errors import Refusal
from portal.extensions import db
from portal.forms import address


def add(
    email: str, password: str | None, *, system_administrator: bool = False, tenant_id: int | None = None
) -> Account | Refusal:
    """Return the account, made or found, with the role added. An account that exists keeps its password.

    A password is needed for a new account only, and has to be one that the pages take too.
    """
    try:
        email = address(email).lower()
    except ValueError as error:
        return Refusal("email", str(error))
    account = db.session.scalar(select(Account).where(Account.email == email))
    if account is None:
        wrong, password = current_app.extensions["security"].password_util.validate(password or "", True, email=email)
        if wrong:
            return Refusal("password", wrong[0])
        account = Account(email=email, password=hash_password(password), active=True, fs_uniquifier=uuid4().hex)
        db.session.add(account)
    if system_administrator and not account.is_system_administrator:
        account.roles = [*account.roles, _role(SYSTEM_ADMINISTRATOR)]
        note("account.made_system_administrator", email)
    if tenant_id is not None and not any(each.tenant_id == tenant_id for each in account.memberships):
        account.memberships.append(Membership(tenant_id=tenant_id))
    db.session.commit()
    return account


def exists(email: str) -> bool:
    """Return whether an account signs in with this address, so that a password need not be asked for."""
    return db.session.scalar(select(Account.id).where(Account.email == email.strip().lower())) is not None


def _role(name: str) -> Role:
    return db.session.scalar(select(Role).where(Role.name == name)) or Role(name=name)
