"""The delivery log as CSV: one line for each recipient, newest event first."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from portal.database.scope import enter_scope
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import LogFilter, search_events
from portal.extensions import db
from portal.web import csv_export
from portal.web.csv_export import Cells, ReadPage
from portal.web.pagination import Page

COLUMNS: Final = {
    "received_at": RecordedEvent.received_at,
    "event": RecordedEvent.type,
    "event_id": RecordedEvent.external_id,
    "queue": RecordedEvent.data["queue_number"].astext,
    "caller": RecordedEvent.data["caller_number"].astext,
    "extension": RecordedEvent.data["extension_number"].astext,
    "ignored": RecordedEvent.ignored_reason,
    "outcome": Delivery.status,
    "held_for": Delivery.reason,
    "recipient": DeliveryRecipient.email,
    "recipient_outcome": DeliveryRecipient.status,
    "code": DeliveryRecipient.code,
    "enhanced_code": DeliveryRecipient.enhanced_code,
    "reply": DeliveryRecipient.text,
    "mail_server": Delivery.mail_server_label,
    "attempts": Delivery.attempts,
    "attempted_at": Delivery.last_attempt_at,
    "next_attempt_at": Delivery.next_attempt_at,
    "expires_at": Delivery.expires_at,
    "message_id": Delivery.message_id,
}


def page_reader(tenant_id: int, log_filter: LogFilter) -> ReadPage:
    """Return a function that reads the cells of the tenant's events that match, some events at a time."""

    def read_page(before: UUID | None) -> Page[Cells, UUID]:
        enter_scope(tenant_id)
        events = search_events(tenant_id, log_filter, before, limit=csv_export.BATCH_SIZE)
        query = (
            select(*COLUMNS.values())
            .select_from(RecordedEvent)
            .outerjoin(Delivery, Delivery.event_id == RecordedEvent.id)
            .outerjoin(DeliveryRecipient, DeliveryRecipient.delivery_id == Delivery.id)
            .where(RecordedEvent.id.in_(events.rows))
            .order_by(RecordedEvent.id.desc(), Delivery.id, DeliveryRecipient.position)
        )
        rows = db.session.execute(query) if events.rows else ()
        return Page([list(map(_in_utc, row)) for row in rows], events.next_key)

    return read_page


def _in_utc(cell: Any) -> Any:
    return cell.astimezone(UTC).isoformat(timespec="seconds") if isinstance(cell, datetime) else cell
