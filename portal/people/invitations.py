"""Invitations by email: a one-time link that gives an email address a role in a tenant, or in the system.

Inviting does the same whether or not the address has an account, so that nobody learns who has one. An address without
an account gets one without a password, which cannot sign in before its owner accepts.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from flask_babel import gettext
from sqlalchemy import ColumnElement, Select, delete, exists, func, select

from portal.accounts import emails, rate_limits
from portal.accounts import service as account_service
from portal.accounts.models import SYSTEM_ADMINISTRATOR, Account, Membership
from portal.accounts.rate_limits import ACCOUNT, HOUR, Limit, Rule
from portal.audit.log import record
from portal.crypto import hash_token, new_token
from portal.database import clock
from portal.database.scope import every_tenant, scope_of_owner
from portal.errors import Refusal
from portal.extensions import db
from portal.people.members import NOT_ALLOWED, administers, delete_unused_account
from portal.people.models import Invitation
from portal.signals import first_sign_in
from portal.tenants.models import Tenant

VALID_FOR: Final = timedelta(days=7)
MAX_OPEN: Final = 100  # of a tenant
# Invitations are emails to people who did not ask for them.
SENT_BY_AN_ACCOUNT: Final = Rule("send invitation", (Limit(20, HOUR, ACCOUNT),))
SENT_BY_A_TENANT: Final = Rule("tenant's invitations", (Limit(50, 24 * HOUR, ACCOUNT),))
SENT_TO_AN_ADDRESS: Final = Rule("receive invitation", (Limit(10, 24 * HOUR, ACCOUNT),))
# Fewer, so that one tenant does not use up an address's.
SENT_TO_AN_ADDRESS_BY_ONE: Final = Rule("receive invitation of one", (Limit(3, 24 * HOUR, ACCOUNT),))


def init_app() -> None:
    """Accept the invitations of an account that begins with single sign-on."""
    first_sign_in.connect(accept_all)


def invite(tenant: Tenant | None, email: str, role: str, *, by: Account) -> str | Refusal:
    """Email an invitation to a tenant, or to the system for None, in place of an earlier one. Return its link.

    It is in the language of the invited account, the tenant, or the page.
    """
    tenant_id = tenant.id if tenant else None
    account_service.lock_access(by)
    if refusal := _refusal(tenant_id, email, by):
        return refusal
    if account_service.find(email) is None:
        account_service.new(email)
    with scope_of_owner(tenant_id):
        invitation = db.session.scalar(_of(tenant_id).where(Invitation.email == email))
        if invitation is None:
            invitation = Invitation(tenant_id=tenant_id, email=email)
            db.session.add(invitation)
        invitation.role, invitation.invited_by, invitation.invited_by_id = role, name_of_inviter(by), by.id
        token = renew(invitation)
        record("invitation.sent", email, tenant_id=tenant_id, changes={"role": [None, role]})
        db.session.commit()
    account = account_service.find(email)
    assert account is not None
    message, values = message_of(invitation, tenant, token)
    emails.send(message, account, **values)
    return str(values["link"])


def renew(invitation: Invitation) -> str:
    """Return the token of a new link, without committing it. Earlier links are no longer valid."""
    token = new_token()
    invitation.token_hash, invitation.is_due = hash_token(token), False
    invitation.sent_at, invitation.expires_at = clock.now(), clock.now() + VALID_FOR
    return token


def name_of_inviter(by: Account) -> str:
    """Return the name that an invited person reads."""
    return f"{by.name} ({by.email})" if by.name else by.email


def message_of(invitation: Invitation, tenant: Tenant | None, token: str) -> tuple[str, dict[str, Any]]:
    """Return the message of an invitation with this token, and its values: see `emails.send`."""
    link = emails.portal_link("invitation.show", token=token)
    names = {"who": invitation.invited_by, "tenant": tenant.name if tenant else ""}
    values = {"language": tenant.language if tenant else None, "link": link, "valid_for": VALID_FOR, **names}
    return f"{emails.INVITATION}.{invitation.role}", values


def list_open(tenant: Tenant | None) -> Sequence[Invitation]:
    """Return the invitations to a tenant, or to the system for None, that were neither accepted nor withdrawn."""
    with scope_of_owner(tenant.id if tenant else None):
        return db.session.scalars(_of(tenant.id if tenant else None).order_by(Invitation.email)).all()


def find(tenant: Tenant | None, invitation_id: int) -> Invitation | None:
    """Return an invitation to a tenant, or to the system for None."""
    return next((found for found in list_open(tenant) if found.id == invitation_id), None)


def find_by_token(token: str) -> Invitation | None:
    """Return the invitation that a link leads to, or None if it was accepted, withdrawn or replaced, or has expired."""
    with every_tenant():
        return db.session.scalar(_acceptable().where(Invitation.token_hash == hash_token(token)))


def of_account(account: Account) -> Sequence[Invitation]:
    """Return the invitations that the account can accept."""
    with every_tenant():
        return db.session.scalars(_acceptable().where(Invitation.email == account.email)).all()


def withdraw(invitation: Invitation) -> None:
    """Make the invitation's link invalid, and delete the account if it was made only for this invitation."""
    account_service.lock_access()
    with every_tenant():
        if _delete(Invitation.id == invitation.id):
            record("invitation.withdrawn", invitation.email, tenant_id=invitation.tenant_id)
            delete_unused_account(invitation.email)
        db.session.commit()


def accept(account: Account, invitation: Invitation) -> Refusal | None:
    """Give the account what the invitation to its email address offers.

    For a person who has proved that the address is theirs: with the link, or by signing in to the account.
    """
    account_service.lock_access(account)
    if not account.active:
        return Refusal("", gettext("Your account is deactivated. Ask your system administrator."))
    with every_tenant():
        if not _delete(
            Invitation.id == invitation.id,
            Invitation.token_hash == invitation.token_hash,
            Invitation.email == account.email,
            Invitation.expires_at > clock.now(),
        ):
            return Refusal("", gettext("This invitation is no longer valid. Ask for a new one."))
        account_service.grant(account, invitation.role, invitation.tenant_id)
        record("invitation.accepted", account.email, tenant_id=invitation.tenant_id)
        db.session.commit()
    return None


def accept_all(account: Account) -> None:
    """Accept all open invitations of an account that signs in for the first time, with single sign-on."""
    for invitation in of_account(account):
        accept(account, invitation)


def accept_with_password(invitation: Invitation, name: str, password: str) -> Account | Refusal:
    """Return the invited account, which has accepted and signs in with this password from now on."""
    hashed = account_service.hashed_password(invitation.email, password)
    if isinstance(hashed, Refusal):
        return hashed
    account_service.lock_access()  # the account may be deleted meanwhile, or added
    account = account_service.find(invitation.email) or account_service.new(invitation.email)
    db.session.flush()
    account_service.lock_access(account)
    if account.password or account.last_sign_in_at:
        return Refusal("", gettext("This account is in use already. Sign in with it."))
    account.name, account.password = name, hashed
    refusal = accept(account, invitation)
    if refusal:
        db.session.rollback()
    return refusal or account


def _refusal(tenant_id: int | None, email: str, by: Account) -> Refusal | None:
    if not administers(by, tenant_id):
        return Refusal("", gettext(NOT_ALLOWED))  # someone has just removed them
    is_member = select(Account.id).where(Account.email == email, _has_access(tenant_id))
    if db.session.scalar(select(exists(is_member))):
        return Refusal("email", gettext("%(email)s already has access.", email=email))
    with scope_of_owner(tenant_id):
        count = db.session.scalar(select(func.count()).select_from(_of(tenant_id).subquery()))
    if (count or 0) >= MAX_OPEN:
        return Refusal("", gettext("There are too many open invitations. Withdraw some first."))
    counted = [(SENT_BY_AN_ACCOUNT, str(by.id))]
    counted += [(SENT_BY_A_TENANT, str(tenant_id))] if tenant_id else []
    counted += [(SENT_TO_AN_ADDRESS_BY_ONE, f"{tenant_id} {email}"), (SENT_TO_AN_ADDRESS, email)]
    if any(rate_limits.count(rule, account=subject) for rule, subject in counted):
        return Refusal("", gettext("Too many invitations were sent. Try again later."))
    return None


def _has_access(tenant_id: int | None) -> ColumnElement[bool]:
    if tenant_id is None:
        return Account.roles.any(name=SYSTEM_ADMINISTRATOR)
    return Account.memberships.any(Membership.tenant_id == tenant_id)


def _of(tenant_id: int | None) -> Select[Invitation]:
    return select(Invitation).where(Invitation.tenant_id == tenant_id)


def _acceptable() -> Select[Invitation]:
    return select(Invitation).where(Invitation.expires_at > clock.now())


def _delete(*conditions: ColumnElement[bool]) -> bool:
    """Delete the invitation that meets the conditions, and return whether there was one."""
    deletion = delete(Invitation).where(*conditions).returning(Invitation.id)
    return db.session.scalar(deletion.execution_options(synchronize_session=False)) is not None
