"""Which mail server applies to a tenant: its own, else the system's while that is shared."""

from typing import Final

from sqlalchemy import func, select

from portal.database import every_tenant
from portal.extensions import db
from portal.mail_servers.models import MailServer

LOCK: Final = 0x5E77  # Postgres' advisory locks of mail servers, by owner: one that is not there yet has no row


def of_owner(tenant_id: int | None, *, to_change: bool = False) -> MailServer | None:
    """Return the mail server that the tenant itself set, or the system's for None.

    `to_change` locks it until the transaction ends, also where there is none: who else wants to change it waits.
    """
    query = select(MailServer).where(MailServer.tenant_id == tenant_id)
    with every_tenant():
        if to_change:
            db.session.execute(select(func.pg_advisory_xact_lock(LOCK, tenant_id or 0)))
            query = query.with_for_update().execution_options(populate_existing=True)
        return db.session.scalar(query)


def shared() -> MailServer | None:
    """Return the system's mail server while it is shared with all tenants."""
    system = of_owner(None)
    return system if system is not None and system.shared else None


def in_force(tenant_id: int) -> MailServer | None:
    """Return the mail server that a tenant's mail goes through, or None. Its own wins."""
    return of_owner(tenant_id) or shared()
