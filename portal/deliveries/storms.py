"""Storms: too many mails about one queue. Beyond a limit they are held, and one digest tells of them.

A storm's time begins with its first event and is as long as the tenant set. What is held is never dropped: it stays in
the delivery log, and a person may send it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from uuid_utils.compat import uuid4, uuid7

from portal import statements
from portal.database import enter_scope, every_tenant
from portal.deliveries.mail import NewMail
from portal.deliveries.models import Delivery, RecordedEvent, Storm
from portal.deliveries.record import record
from portal.deliveries.states import Reason
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.digest import DIGEST, SHOWN, StormDigest
from portal.notifications.events import Event
from portal.notifications.kinds import KINDS
from portal.notifications.switches import Audience
from portal.tenants import directory


def over() -> Sequence[tuple[int, str, str]]:
    """Return tenant, event type and queue of each storm that is over, and forget those that held nothing."""
    ended = Storm.ends_at <= func.now()
    with every_tenant():
        db.session.execute(delete(Storm).where(ended, Storm.held == 0))
        keys = select(Storm.tenant_id, Storm.event_type, Storm.queue).where(ended)
        found = [(tenant_id, event_type, queue) for tenant_id, event_type, queue in db.session.execute(keys)]
        db.session.commit()
    return found


def write_digest(tenant_id: int, event_type: str, queue: str) -> bool:
    """Record the digest of a storm that is over, and forget the storm. Return whether there was anything to tell."""
    enter_scope(tenant_id)
    this = (Storm.event_type == event_type, Storm.queue == queue, Storm.ends_at <= func.now())
    storm = db.session.scalar(select(Storm).where(*this).with_for_update(skip_locked=True))
    if storm is None:
        db.session.rollback()
        return False
    written = _write_digest(storm)
    db.session.delete(storm)
    db.session.commit()
    return written


def _write_digest(storm: Storm) -> bool:
    tenant, held, addresses = directory.get(storm.tenant_id), _held(storm), recipients.wanting(storm.event_type)
    if not held or not addresses:
        return False
    now = datetime.now(UTC)
    data = StormDigest(
        event_type=storm.event_type,
        what=KINDS[storm.event_type].plural or KINDS[storm.event_type].label,
        count=storm.events,
        held=len(held),
        queue_number=storm.queue,
        queue_name=held[-1].data.get("queue_name"),
        first_at=storm.started_at,
        last_at=max(each.received_at for each in held),
        calls=[{"at": each.occurred_at, "caller": _caller(each)} for each in held[:SHOWN]],
        more=max(0, len(held) - SHOWN),
    )
    event = Event(str(uuid4()), DIGEST, None, now, data, canonical=data.model_dump_json())
    row_id = uuid7()
    mail = NewMail.about(row_id, event.expiry, Audience.RECIPIENTS, addresses)
    mail.wait_until(now)
    record(tenant, event, row_id, [mail], run=statements.run_within_session)
    return True


def _held(storm: Storm) -> Sequence[RecordedEvent]:
    """Return the events of the storm whose mails were held for it, oldest first."""
    query = (
        select(RecordedEvent)
        .join(Delivery, Delivery.event_id == RecordedEvent.id)
        .where(
            Delivery.tenant_id == storm.tenant_id,
            Delivery.reason == Reason.THROTTLED,
            RecordedEvent.type == storm.event_type,
            RecordedEvent.data["queue_number"].astext == storm.queue,
            RecordedEvent.received_at >= storm.started_at,
        )
        .order_by(RecordedEvent.id)
    )
    return db.session.scalars(query).all()


def _caller(event: RecordedEvent) -> str:
    name, number = event.data.get("caller_name"), event.data["caller_number"]
    return f"{name} ({number})" if name else number
