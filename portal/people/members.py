"""Who has access, and who may change that.

`by` is the account that makes a change; None is the command line. A tenant's administrators give and take roles in
their tenant. They may block an account, end its sessions or reset its second factor only if it belongs to no other
tenant and administers nothing else: otherwise they would take over what is not theirs.
"""

from collections.abc import Sequence
from typing import Final

from flask_babel import gettext
from sqlalchemy import Select, delete, exists, or_, select

from portal import config
from portal.accounts import sessions, two_factor
from portal.accounts.models import (
    ADMINISTRATOR,
    SYSTEM_ADMINISTRATOR,
    Account,
    AccountSession,
    EmailChange,
    Membership,
    Role,
)
from portal.accounts.service import break_glass_accounts, find, grant, lock_access
from portal.audit.log import record
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.people.models import Invitation
from portal.web.i18n import to_translate

NOT_ALLOWED: Final = to_translate("Only a system administrator can do this.")


def administers(by: Account, tenant_id: int | None) -> bool:
    """Return whether the account administers the tenant, or for None the system, and was not deactivated meanwhile."""
    return by.active and (by.is_system_administrator if tenant_id is None else by.administers(tenant_id))


def may_control(by: Account | None, account: Account, tenant_id: int | None) -> bool:
    """Return whether `by` may block the account, end its sessions or reset its second factor, from a tenant's pages.

    Nobody may for their own account, which has a page of its own that asks for the password.
    """
    if by is None or account == by:
        return by is None
    if not administers(by, tenant_id):
        return False
    if by.is_system_administrator:
        return True
    if account.is_system_administrator:
        return False
    return {membership.tenant_id for membership in account.memberships} == {tenant_id}


def may_reactivate(by: Account | None, account: Account, tenant_id: int | None) -> bool:
    """Return whether `by` may unblock the account: in a tenant only what its own administrators have blocked."""
    if by is None or by.is_system_administrator:
        return True
    return may_control(by, account, tenant_id) and account.deactivated_by_tenant_id == tenant_id


def set_active(account: Account, active: bool, *, by: Account | None, tenant_id: int | None = None) -> Refusal | None:
    """Unblock the account, or block it and sign it out everywhere. The last system administrator stays."""
    if refusal := _lock_and_check(account, by, tenant_id):
        return refusal
    if not active and config.current().sso_only and break_glass_accounts() == [account]:
        return Refusal("", gettext("This is the last break-glass account. Mark another one first."))
    if active and not may_reactivate(by, account, tenant_id):
        return Refusal("", gettext(NOT_ALLOWED))
    if not active and _is_last_system_administrator(account):
        return _last_system_administrator()
    if account.active and not active:
        is_by_tenant = by is not None and not by.is_system_administrator
        account.deactivated_by_tenant_id = tenant_id if is_by_tenant else None
    account.active = active
    if not active:
        db.session.execute(delete(AccountSession).where(AccountSession.account_id == account.id))
        db.session.execute(delete(EmailChange).where(EmailChange.account_id == account.id))
        _withdraw_invitations_by(account)
    record("account.reactivated" if active else "account.deactivated", account.email, tenant_id=tenant_id)
    db.session.commit()
    return None


def end_sessions(account: Account, *, by: Account | None, tenant_id: int | None = None) -> Refusal | None:
    """Sign the account out everywhere."""
    if refusal := _lock_and_check(account, by, tenant_id):
        return refusal
    record("account.sessions_ended", account.email, tenant_id=tenant_id)
    sessions.end_others(account, None)
    return None


def reset_two_factor(account: Account, *, by: Account | None, tenant_id: int | None = None) -> Refusal | None:
    """Turn the account's two-factor authentication off, and email its owner."""
    if refusal := _lock_and_check(account, by, tenant_id):
        return refusal
    two_factor.reset(account, tenant_id)
    return None


def set_role(account: Account, tenant_id: int, role: str, *, by: Account | None) -> Refusal | None:
    """Change the account's role in a tenant."""
    membership = _lock_and_find(account, tenant_id, by)
    if isinstance(membership, Refusal):
        return membership
    if role != ADMINISTRATOR:
        if _is_last_administrator(account, tenant_id, by):
            return _last_administrator()
        _withdraw_invitations_by(account, tenant_id)
    membership.role = role
    db.session.commit()
    return None


def remove(account: Account, tenant_id: int, *, by: Account | None) -> Refusal | None:
    """Take the account's access to a tenant away."""
    membership = _lock_and_find(account, tenant_id, by)
    if isinstance(membership, Refusal):
        return membership
    if _is_last_administrator(account, tenant_id, by):
        return _last_administrator()
    account.memberships.remove(membership)
    _withdraw_invitations_by(account, tenant_id)
    _withdraw_invitations_to(account, tenant_id)
    db.session.commit()
    return None


def set_system_administrator(account: Account, value: bool, *, by: Account | None) -> Refusal | None:
    """Make the account a system administrator, or no longer. The last one stays."""
    lock_access(*filter(None, (account, by)))
    if by is not None and not administers(by, None):
        return Refusal("", gettext(NOT_ALLOWED))
    if value:
        grant(account, SYSTEM_ADMINISTRATOR)
    elif account.is_system_administrator:
        if _is_last_system_administrator(account):
            return _last_system_administrator()
        account.roles = [role for role in account.roles if role.name != SYSTEM_ADMINISTRATOR]
        record("account.removed_as_system_administrator", account.email)
        _withdraw_invitations_by(account)
        _withdraw_invitations_to(account, None)
    db.session.commit()
    return None


def remove_all(tenant_id: int) -> None:
    """Take everyone's access to a tenant away, without committing it: it is being deleted.

    As in `remove`, their accounts stay, except those that were made only for an invitation to it.
    """
    lock_access()
    with every_tenant():
        for membership in db.session.scalars(select(Membership).where(Membership.tenant_id == tenant_id)).all():
            db.session.delete(membership)
        for email in _withdraw(select(Invitation).where(Invitation.tenant_id == tenant_id)):
            delete_unused_account(email)


def delete_unused_account(email: str) -> None:
    """Delete an account that was made only for invitations, if none is left, without committing it."""
    account = find(email)
    if account is None or db.session.scalar(select(exists().where(Invitation.email == email))):
        return
    lock_access(account)
    if account.is_only_invited and account.active:  # else inviting again would unblock it
        db.session.delete(account)


def _lock_and_check(account: Account, by: Account | None, tenant_id: int | None) -> Refusal | None:
    lock_access(*filter(None, (account, by)))
    return None if may_control(by, account, tenant_id) else Refusal("", gettext(NOT_ALLOWED))


def _lock_and_find(account: Account, tenant_id: int, by: Account | None) -> Membership | Refusal:
    lock_access(*filter(None, (account, by)))
    if by is not None and not administers(by, tenant_id):  # someone has just removed them
        return Refusal("", gettext(NOT_ALLOWED))
    found = next((member for member in account.memberships if member.tenant_id == tenant_id), None)
    return found or Refusal("", gettext("%(email)s has no access to this tenant.", email=account.email))


def _is_last_administrator(account: Account, tenant_id: int, by: Account | None) -> bool:
    """Return whether no active administrator would be left, which only a system administrator may cause."""
    if by is None or by.is_system_administrator or account.role_in(tenant_id) != ADMINISTRATOR:
        return False
    others = select(Membership).join(Account).where(Membership.tenant_id == tenant_id, Account.id != account.id)
    return not db.session.scalar(select(exists(others.where(Membership.role == ADMINISTRATOR, Account.active))))


def _is_last_system_administrator(account: Account) -> bool:
    """Return whether no other one is left who is not blocked, and who has a way to sign in."""
    if not (account.active and account.is_system_administrator):
        return False
    others = select(Account.id).join(Account.roles).where(Role.name == SYSTEM_ADMINISTRATOR, Account.active)
    is_used = or_(Account.password.is_not(None), Account.last_sign_in_at.is_not(None))
    return not db.session.scalar(select(exists(others.where(Account.id != account.id, is_used))))


def _withdraw_invitations_by(account: Account, tenant_id: int | None = None) -> None:
    """Delete the open invitations that someone sent who may no longer invite: to all tenants, or to one."""
    query = select(Invitation).where(Invitation.invited_by_id == account.id)
    for email in _withdraw(query.where(Invitation.tenant_id == tenant_id) if tenant_id else query):
        with every_tenant():
            delete_unused_account(email)


def _withdraw_invitations_to(account: Account, tenant_id: int | None) -> None:
    """Delete the open invitation of someone who got the role in another way, and could come back with it."""
    _withdraw(select(Invitation).where(Invitation.email == account.email, Invitation.tenant_id == tenant_id))


def _withdraw(query: Select[Invitation]) -> Sequence[str]:
    """Delete these invitations, and return their email addresses."""
    with every_tenant():
        withdrawn = db.session.scalars(query).all()
        for invitation in withdrawn:
            record("invitation.withdrawn", invitation.email, tenant_id=invitation.tenant_id)
            db.session.delete(invitation)
        db.session.flush()
    return [invitation.email for invitation in withdrawn]


def _last_administrator() -> Refusal:
    text = gettext(
        "This is the tenant's last active administrator. Invite another one first, or ask a system administrator."
    )
    return Refusal("", text)


def _last_system_administrator() -> Refusal:
    return Refusal("", gettext("This is the last active system administrator. Add another one first."))
