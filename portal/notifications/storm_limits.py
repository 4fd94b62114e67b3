"""How many mails about one queue are too many at once: a tenant's own limits."""

from portal.extensions import db
from portal.tenants.models import Tenant

MOST_MAILS = 1000
MOST_MINUTES = 60


def save(tenant: Tenant, limit: int, minutes: int) -> None:
    """Hold what comes after `limit` mails in `minutes` minutes about one queue. A storm that goes on keeps its time."""
    tenant.storm_limit, tenant.storm_minutes = limit, minutes
    db.session.commit()
