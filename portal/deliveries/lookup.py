"""Finding events and emails of all tenants, for system administrators: by an exact ID or email address."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, select, true

from portal.database.scope import every_tenant
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import id_in_message_id
from portal.extensions import db
from portal.tenants.models import Tenant

MAX_FOUND: Final = 10
COLUMNS: Final = (RecordedEvent.tenant_id, RecordedEvent.id, RecordedEvent.type, RecordedEvent.received_at)


class FoundEvent(NamedTuple):
    """An event of a tenant."""

    tenant_id: int
    id: UUID
    type: str
    received_at: datetime


class FoundEmail(NamedTuple):
    """An email to a recipient, what became of it, and its event."""

    event: FoundEvent
    email: str
    status: str


def events_with_id(text: str) -> Sequence[FoundEvent]:
    """Return the events with this event ID, whoever gave it to them, or that an email with this Message-ID is about."""
    queries: list[Select[*tuple[Any, ...]]] = [_with_external_id(text)]
    if (delivery_id := id_in_message_id(text)) is not None:
        of_delivery = select(Delivery.event_id).where(Delivery.id == delivery_id)
        queries.append(select(*COLUMNS).where(RecordedEvent.id.in_(of_delivery)))
    if (event_id := _as_uuid(text)) is not None:  # the portal's own, as in the URL of the event's page
        queries.append(select(*COLUMNS).where(RecordedEvent.id == event_id))
    with every_tenant():
        found = {FoundEvent(*row) for query in queries for row in db.session.execute(query)}
    return sorted(found, key=lambda event: event.received_at, reverse=True)[:MAX_FOUND]


def newest_emails_to(emails: Collection[str]) -> Sequence[FoundEmail]:
    """Return the newest emails to any of these addresses, newest first."""
    found: list[Any] = []
    with every_tenant():
        for email in emails:
            newest = (
                select(DeliveryRecipient.delivery_id, DeliveryRecipient.email, DeliveryRecipient.status)
                .where(DeliveryRecipient.email == email)
                .order_by(DeliveryRecipient.delivery_id.desc())
                .limit(MAX_FOUND)
                .subquery()
            )
            query = (
                select(*COLUMNS, newest.c.email, newest.c.status, newest.c.delivery_id)
                .join(Delivery, Delivery.id == newest.c.delivery_id)
                .join(RecordedEvent, RecordedEvent.id == Delivery.event_id)
            )
            found += db.session.execute(query)
    found.sort(key=lambda row: row.delivery_id, reverse=True)
    return [FoundEmail(FoundEvent(*row[:4]), row.email, row.status) for row in found[:MAX_FOUND]]


def _with_external_id(text: str) -> Select[*tuple[Any, ...]]:
    """Return the query that looks into the index of each tenant: one over all tenants would cost every event."""
    found = select(*COLUMNS).where(RecordedEvent.tenant_id == Tenant.id, RecordedEvent.external_id == text)
    of_tenant = found.limit(1).lateral("event")
    return select(*of_tenant.c).select_from(Tenant).join(of_tenant, true()).limit(MAX_FOUND)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
