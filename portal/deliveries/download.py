"""The delivery log as CSV: a line for each recipient of what is looked for, newest event first."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from portal.comma_separated import lines
from portal.database import enter_scope
from portal.deliveries import search
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import Wanted
from portal.extensions import db

BATCH: Final = 500  # events
COLUMNS: Final = {
    "received_at": RecordedEvent.received_at,
    "event": RecordedEvent.type,
    "event_id": RecordedEvent.event_id,
    "queue": RecordedEvent.data["queue_number"].astext,
    "caller": RecordedEvent.data["caller_number"].astext,
    "extension": RecordedEvent.data["extension_number"].astext,
    "ignored": RecordedEvent.ignored_reason,
    "outcome": Delivery.status,
    "held_for": Delivery.reason,
    "recipient": DeliveryRecipient.address,
    "recipient_outcome": DeliveryRecipient.status,
    "code": DeliveryRecipient.code,
    "enhanced_code": DeliveryRecipient.enhanced_code,
    "reply": DeliveryRecipient.text,
    "mail_server": Delivery.mail_server,
    "attempts": Delivery.attempts,
    "attempted_at": Delivery.attempted_at,
    "next_attempt_at": Delivery.next_attempt_at,
    "expires_at": Delivery.expires_at,
    "message_id": Delivery.message_id,
}


def content(tenant_id: int, wanted: Wanted) -> Iterator[str]:
    """Give what is wanted of a tenant's log, some events at a time.

    Each time is a transaction of its own, over before its lines are given: who reads slowly keeps no connection, and
    when nobody reads any more nothing goes on.
    """
    text, before = lines([list(COLUMNS)]), search.NEWEST
    while True:
        enter_scope(tenant_id)
        found = search.find(tenant_id, wanted, before, most=BATCH)
        text += lines(_rows(found.keys)) if found.keys else ""
        db.session.commit()
        if text:
            yield text
        if found.rest is None:
            return
        text, before = "", found.rest


def _rows(keys: Sequence[UUID]) -> Iterator[Sequence[Any]]:
    query = (
        select(*COLUMNS.values())
        .select_from(RecordedEvent)
        .outerjoin(Delivery, Delivery.event_id == RecordedEvent.id)
        .outerjoin(DeliveryRecipient, DeliveryRecipient.delivery_id == Delivery.id)
        .where(RecordedEvent.id.in_(keys))
        .order_by(RecordedEvent.id.desc(), Delivery.id, DeliveryRecipient.position)
    )
    for row in db.session.execute(query):
        yield [_in_utc(each) if isinstance(each, datetime) else each for each in row]


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
