"""Deleting a tenant with everything that belongs to it, except its entries in the audit trail.

`request` ends its email and everyone's access at once. A worker then deletes its events in portions, each a transaction
of its own, so that nobody waits for it, and at last the tenant. A command, which waits, calls `finish` itself. After a
crash either continues where it was.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, select

from portal.accounts.models import Membership
from portal.audit.log import Change, record
from portal.database import clock
from portal.database.scope import enter_scope, every_tenant
from portal.deliveries.models import Delivery, RecordedEvent
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth.models import OAuthConnection
from portal.notifications.models import Recipient
from portal.pbx.models import ApiKey, RejectedRequest
from portal.people import members
from portal.people.models import Invitation
from portal.provisioning.models import ProvisioningToken
from portal.signals import transfer_due
from portal.tenants.models import Tenant

logger = logging.getLogger(__name__)

PORTION: Final = 1000  # rows per transaction
MAX_TIME: Final = 30.0  # seconds of one run in a worker, which has other work too
ACCESS: Final = (ApiKey, MailServer, OAuthConnection)  # with what a PBX and the portal sign in


def init_app() -> None:
    """Continue deletions whenever a worker says so."""
    transfer_due.connect(continue_all)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much belongs to a tenant. People are those with access and those who are invited."""

    event_count: int
    email_count: int
    recipient_count: int
    key_count: int
    person_count: int


def count(tenant_id: int) -> Counts:
    """Return how much belongs to a tenant; of one that was deleted, what is left."""
    counted: dict[str, Sequence[type[Any]]] = {
        "event_count": [RecordedEvent],
        "email_count": [Delivery],
        "recipient_count": [Recipient],
        "key_count": [ApiKey],
        "person_count": [Membership, Invitation],
    }
    with every_tenant():
        return Counts(**{name: sum(_count(model, tenant_id) for model in models) for name, models in counted.items()})


def _count(model: type[Any], tenant_id: int) -> int:
    return db.session.scalar(select(func.count()).select_from(model).where(model.tenant_id == tenant_id)) or 0


def request(tenant: Tenant) -> Counts:
    """Suspend the tenant, end everyone's access to it, and let a worker delete it. Return how much that is.

    A request that is repeated changes nothing.
    """
    db.session.refresh(tenant, with_for_update={"key_share": True})
    counts = count(tenant.id)
    if tenant.deletion_requested_at is None:
        tenant.deletion_requested_at = clock.now()
        tenant.suspended_at = tenant.suspended_at or tenant.deletion_requested_at
        changes: dict[str, Change] = {name: [number, 0] for name, number in asdict(counts).items()}
        record("tenant.deletion_requested", tenant.domain, tenant_id=tenant.id, changes=changes)
        members.remove_all(tenant.id)
        with every_tenant():
            for model in ACCESS:
                for row in db.session.scalars(select(model).where(model.tenant_id == tenant.id)).all():
                    db.session.delete(row)
            db.session.flush()
    db.session.commit()
    return counts


def continue_all(_sender: object = None) -> None:
    """Continue the deletion of all tenants for which it was requested, for a while."""
    ends = time.monotonic() + MAX_TIME
    due = select(Tenant.id).where(Tenant.deletion_requested_at.is_not(None)).order_by(Tenant.deletion_requested_at)
    for tenant_id in db.session.scalars(due).all():
        if not finish(tenant_id, lambda: time.monotonic() < ends):
            break


def finish(tenant_id: int, may_continue: Callable[[], bool] = lambda: True) -> bool:
    """Delete what is left of a tenant whose deletion was requested, and return whether nothing is.

    `may_continue` is asked after each portion.
    """
    enter_scope(tenant_id)  # so that no mistake deletes another tenant's
    for model in (RecordedEvent, ProvisioningToken, RejectedRequest):
        last_id: UUID | int | None = None
        while True:
            last_id, is_last = _delete_portion(model, tenant_id, last_id)
            db.session.commit()
            if not may_continue():
                return False
            if is_last:
                break
    _delete_tenant(tenant_id)
    return True


def _delete_portion(model: type[Any], tenant_id: int, after: UUID | int | None) -> tuple[UUID | int | None, bool]:
    """Delete a portion of the rows after an id, and return the last id and whether there are no more.

    It begins where the portion before ended: Postgres would have to skip the rows that were just deleted.
    """
    ids = select(model.id).where(model.tenant_id == tenant_id).order_by(model.id).limit(PORTION)
    portion = db.session.scalars(ids.where(model.id > after) if after is not None else ids).all()
    if portion:
        db.session.execute(delete(model).where(model.id.in_(portion)).execution_options(synchronize_session=False))
    return (portion[-1] if portion else after), len(portion) < PORTION


def _delete_tenant(tenant_id: int) -> None:
    """Delete the tenant and, by foreign keys, its settings. No event can arrive meanwhile: its row is locked."""
    tenant = db.session.scalar(
        select(Tenant)
        .where(Tenant.id == tenant_id, Tenant.deletion_requested_at.is_not(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if tenant is not None:  # else another process has deleted it
        db.session.delete(tenant)
        db.session.flush()
        logger.info("Deleted the tenant %s.", tenant.domain)
    db.session.commit()
