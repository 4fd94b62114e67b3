"""Entering a tenant's workspace. This is the only place that decides whose pages an account sees."""

from werkzeug.exceptions import NotFound

from portal.accounts.access import current_account
from portal.database.scope import enter_scope
from portal.tenants.models import Tenant
from portal.tenants.service import find


def workspace(domain: str) -> Tenant:
    """Return the tenant and enter its scope. Raise NotFound if the account may not, or there is none."""
    tenant = find(domain)
    if tenant is None or not current_account().may_enter(tenant.id):
        raise NotFound
    enter_scope(tenant.id)
    return tenant
