"""The people on a page: those with access to a tenant, or all accounts."""

from collections.abc import Mapping, Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import joinedload, selectinload

from portal.accounts.models import Account, Membership
from portal.extensions import db
from portal.tenants.models import Tenant
from portal.web import pagination
from portal.web.forms import has_control_characters
from portal.web.pagination import Page


def members(tenant: Tenant) -> Sequence[Membership]:
    """Return the memberships of a tenant with their accounts, by email address."""
    query = select(Membership).join(Membership.account).where(Membership.tenant_id == tenant.id).order_by(Account.email)
    return db.session.scalars(query.options(joinedload(Membership.account))).unique().all()


def search(text: str, after: str) -> Page[Account, str]:
    """Return a page of the accounts whose name or email address contains the text, after the address `after`."""
    if has_control_characters(text + after):
        return Page(())
    size = pagination.PAGE_SIZE
    query = select(Account).where(Account.email > after).order_by(Account.email).limit(size + 1)
    if text:
        query = query.where(
            or_(Account.name.icontains(text, autoescape=True), Account.email.icontains(text, autoescape=True))
        )
    query = query.options(selectinload(Account.roles), selectinload(Account.memberships))
    return Page.of(db.session.scalars(query).all(), size, lambda account: account.email)


def find(tenant: Tenant | None, account_id: int) -> Account | None:
    """Return an account with access to the tenant, or for None any account."""
    query = select(Account).where(Account.id == account_id)
    if tenant is not None:
        query = query.where(Account.memberships.any(Membership.tenant_id == tenant.id))
    return db.session.scalar(query.options(selectinload(Account.roles), selectinload(Account.memberships)))


def tenants_by_id(accounts: Sequence[Account]) -> Mapping[int, Tenant]:
    """Return the tenants in which these accounts have a role."""
    ids = {membership.tenant_id for account in accounts for membership in account.memberships}
    return {tenant.id: tenant for tenant in db.session.scalars(select(Tenant).where(Tenant.id.in_(ids)))}
