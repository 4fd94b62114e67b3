"""Entering a tenant's workspace. This is the only place that decides whose pages an account sees."""

from werkzeug.exceptions import NotFound

from portal.accounts.access import current_account, may_open, require_system_administrator
from portal.database.scope import enter_scope
from portal.tenants.models import Tenant
from portal.tenants.service import find


def workspace(domain: str) -> Tenant:
    """Return the tenant and enter its scope. Raise NotFound if there is none, or the account may not open this view."""
    tenant = find(domain)
    if tenant is None or not may_open(current_account(), tenant.id):
        raise NotFound
    enter_scope(tenant.id)
    return tenant


def workspace_or_system(domain: str | None) -> Tenant | None:
    """Do the same for a tenant's domain; for None, the system, require a system administrator and return None."""
    if domain is None:
        require_system_administrator()
        return None
    return workspace(domain)
