"""Entering a tenant's workspace: the one place that decides whose pages an account sees."""

from werkzeug.exceptions import NotFound

from portal.accounts.access import signed_in
from portal.database import enter_scope
from portal.tenants.directory import find
from portal.tenants.models import Tenant


def workspace(domain: str) -> Tenant:
    """Return the tenant, with the session in its scope. For who may not enter, the tenant does not exist: 404."""
    tenant = find(domain)
    if tenant is None or not signed_in().may_enter(tenant.id):
        raise NotFound
    enter_scope(tenant.id)
    return tenant
