"""Letting mail go on that is held or waits, oldest first and at a measured pace."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from portal.audit.entries import note
from portal.database import every_tenant
from portal.deliveries.models import Delivery, DeliveryRecipient
from portal.deliveries.states import Reason, Status
from portal.extensions import db
from portal.signals import mended

PACE = timedelta(milliseconds=500)  # between two mails of a tenant: a mended mail server is not to be buried at once
# A person decides about what may have been sent already, and about what a digest told of.
MENDABLE = tuple(reason for reason in Reason if reason not in {Reason.MAY_HAVE_BEEN_SENT, Reason.THROTTLED})

_waits = Delivery.next_attempt_at.is_not(None)


def init_app() -> None:
    """Have held mail go on when other rooms tell that something was mended."""
    mended.connect(release)


def release(tenant_id: int | None, server_changed: bool = False) -> None:
    """Make the held mail of a tenant due, or of all tenants for None, within the caller's transaction."""
    held = Delivery.reason.in_(MENDABLE)
    of_tenant = Delivery.tenant_id == tenant_id if tenant_id is not None else Delivery.tenant_id.is_not(None)
    with every_tenant():
        _make_due(and_(of_tenant, or_(held, _waits) if server_changed else held))


def send_now(delivery_ids: Collection[UUID]) -> int:
    """Make these mails of the tenant in scope due, whatever they wait for, and return how many it were."""
    mails = _make_due(and_(Delivery.id.in_(delivery_ids), or_(Delivery.reason.is_not(None), _waits)))
    note_decision("sent_now", mails)
    db.session.commit()
    return len(mails)


def note_decision(decision: str, mails: Sequence[tuple[int, str]]) -> None:
    """Tell the audit trail what a person decided about mails of a tenant: its id, and theirs (Message-IDs)."""
    if mails:
        ids = [message_id for _, message_id in mails]
        subject = f"{len(ids)} mail{'s' * (len(ids) > 1)}"
        note(f"mail.{decision}", subject, tenant_id=mails[0][0], changes={"message_ids": [None, ids]})


def _make_due(chosen: ColumnElement[bool]) -> Sequence[tuple[int, str]]:
    # Locked before anything is judged: a mail that a worker takes, or somebody discards, meanwhile is not among them.
    waiting = select(Delivery.id, Delivery.tenant_id, Delivery.expires_at)
    waiting = waiting.where(chosen, Delivery.lease_until.is_(None)).order_by(Delivery.id).with_for_update()
    locked = waiting.cte("locked")
    nth = func.row_number().over(partition_by=locked.c.tenant_id, order_by=locked.c.id) - 1
    due = select(locked.c.id, func.least(func.now() + nth * PACE, locked.c.expires_at).label("at")).cte("due")
    go_on = (
        update(DeliveryRecipient)
        .where(DeliveryRecipient.delivery_id == due.c.id, DeliveryRecipient.status == Status.HELD)
        .values(status=Status.DEFERRED)
        .returning(DeliveryRecipient.delivery_id)
    )
    made_due = (
        update(Delivery)
        .where(Delivery.id == due.c.id)
        .values(
            status=func.replace(Delivery.status, Status.HELD, Status.DEFERRED), reason=None, next_attempt_at=due.c.at
        )
        .returning(Delivery.tenant_id, Delivery.message_id)
        .add_cte(go_on.cte("go_on"))
        .execution_options(synchronize_session=False)
    )
    return [(tenant_id, message_id) for tenant_id, message_id in db.session.execute(made_due)]
