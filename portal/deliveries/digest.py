"""Summary emails for storms: too many events of one type in one queue.

A storm begins with its first event and lasts as long as the tenant has set. The emails beyond the tenant's limit are
held, and one digest lists them. They stay in the delivery log, and a person may send them.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, select, text

from portal.database.scope import enter_scope, every_tenant
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries.intake import record_own_event
from portal.deliveries.models import RecordedEvent, Storm
from portal.deliveries.status import HoldReason
from portal.events.storm_digest import DIGEST, MAX_LISTED_CALLS, StormDigest
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.recipients import MAX_RECIPIENTS
from portal.tenants import service as tenant_service

MAX_CLOCK_DIFFERENCE: Final = timedelta(hours=3)  # of the hosts that made the ids
# Without OFFSET, Postgres would join and sort all of them.
HELD_EVENTS: Final = f"""
    SELECT of_storm.id FROM (
        SELECT event_id FROM deliveries
        WHERE tenant_id = :tenant_id AND id >= :first AND reason = '{HoldReason.THROTTLED}'
        ORDER BY id {{order}} OFFSET 0
    ) AS held, LATERAL (
        SELECT id FROM events WHERE id = held.event_id AND type = :event_type
            AND data ->> 'queue_number' = :queue_number AND received_at >= :started_at
        OFFSET 0
    ) AS of_storm
    LIMIT :most
"""  # noqa: S608 (contains no input)


def ended_storms() -> Sequence[tuple[int, str, str]]:
    """Return tenant, event type and queue of each storm whose time is over, and delete those that held nothing."""
    is_over = Storm.ends_at <= func.now()
    with every_tenant():
        db.session.execute(delete(Storm).where(is_over, Storm.held_count == 0))
        query = select(Storm.tenant_id, Storm.event_type, Storm.queue_number).where(is_over)
        storms = [(tenant_id, event_type, queue) for tenant_id, event_type, queue in db.session.execute(query)]
        db.session.commit()
    return storms


def write_digest(tenant_id: int, event_type: str, queue_number: str) -> bool:
    """Record the digest of a storm whose time is over, and delete the storm. Return whether there was a digest."""
    enter_scope(tenant_id)
    is_storm = (Storm.event_type == event_type, Storm.queue_number == queue_number, Storm.ends_at <= func.now())
    storm = db.session.scalar(select(Storm).where(*is_storm).with_for_update(skip_locked=True))
    if storm is None:
        db.session.rollback()
        return False
    is_written = _record_digest(storm)
    db.session.delete(storm)
    db.session.commit()
    return is_written


def _record_digest(storm: Storm) -> bool:
    tenant = tenant_service.get(storm.tenant_id)
    listed = _held_events(storm, "ASC", MAX_LISTED_CALLS)
    if not listed:
        return False
    (last,) = _held_events(storm, "DESC", 1)
    names = filter(None, (storm.queue_number, last.data.get("queue_name")))
    decision, has_recipients = recipients.decide_about(tenant, storm.event_type, [*names])
    event_type = EVENT_TYPES[storm.event_type]
    data = StormDigest(
        event_type=storm.event_type,
        what=event_type.plural or event_type.label,
        count=storm.event_count,
        held=storm.held_count,
        queue_number=storm.queue_number,
        queue_name=last.data.get("queue_name"),
        first_at=storm.started_at,
        last_at=last.received_at,
        calls=[
            {"at": event.occurred_at, "caller": _caller(event), "number": event.data["caller_number"]}
            for event in listed
        ],
        more=max(0, storm.held_count - len(listed)),
    )
    # Without any recipients, the digest is held until there are some.
    return record_own_event(tenant, DIGEST, data, decision, even_if_empty=not has_recipients)


def _held_events(storm: Storm, order: str, limit: int) -> Sequence[RecordedEvent]:
    """Return some of the events whose emails the storm held. There can be very many, so they are looked at in order.

    An event has several emails if some of its recipients are in quiet hours: at most one for each of them.
    """
    values = {
        **{name: getattr(storm, name) for name in ("tenant_id", "event_type", "queue_number", "started_at")},
        "first": lowest_uuid7(storm.started_at - MAX_CLOCK_DIFFERENCE),
        "most": limit * MAX_RECIPIENTS,
    }
    ids = [*dict.fromkeys(db.session.scalars(text(HELD_EVENTS.format(order=order)), values))][:limit]
    events = {event.id: event for event in db.session.scalars(select(RecordedEvent).where(RecordedEvent.id.in_(ids)))}
    return [events[event_id] for event_id in ids]


def _caller(event: RecordedEvent) -> str:
    name, number = event.data.get("caller_name"), event.data["caller_number"]
    return f"{name} ({number})" if name else number
