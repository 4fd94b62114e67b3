"""The rows of an event and of its mails."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid4, uuid7

from portal import config, crypto
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.states import Reason, Status
from portal.extensions import db
from portal.notifications.events import Event
from portal.notifications.kinds import EventKind
from portal.notifications.switches import Audience
from portal.tenants.models import Tenant


def record(tenant: Tenant, event: Event, ignored: Reason | None) -> UUID | None:
    """Write the event, for the caller's commit. Return the row's id, or None where the tenant has one with its id."""
    row_id = uuid7()
    row = {
        "id": row_id,
        "tenant_id": tenant.id,
        "event_id": event.id,
        "type": event.kind.type,
        "occurred_at": event.time,
        "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
        "data": event.data.public(),
        "secrets_encrypted": None if ignored else RecordedEvent.seal(event.data.secrets(), tenant.id, row_id),
        "ignored_reason": ignored,
    }
    skip_repeated = insert(RecordedEvent).values(row).on_conflict_do_nothing(constraint="uq_events_tenant_id_event_id")
    return db.session.scalar(skip_repeated.returning(RecordedEvent.id))


def new_mail(
    tenant: Tenant, kind: EventKind, event_id: UUID, audience: Audience | str, addresses: Sequence[str]
) -> Delivery:
    """Return a mail about an event that is yet to be prepared, added to nothing."""
    return Delivery(
        id=uuid7(),
        tenant_id=tenant.id,
        event_id=event_id,
        audience=audience,
        message_id=f"<{uuid4().hex}@{config.current().host}>",
        attempts=0,
        expires_at=datetime.now(UTC) + kind.expiry,
        recipients=[
            DeliveryRecipient(tenant_id=tenant.id, address=address, position=position, status=Status.PENDING)
            for position, address in enumerate(addresses)
        ],
    )
