"""Recording an event: one transaction for the event, its mails and their recipients, before the first byte of SMTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from uuid_utils.compat import uuid4, uuid7

from portal import config, crypto
from portal.deliveries import reports
from portal.deliveries.attempt import attempt
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.prepare import prepare, why_unwanted
from portal.deliveries.reports import EventReport
from portal.deliveries.states import Reason, Status
from portal.extensions import db
from portal.mail_servers.selection import in_force
from portal.notifications import recipients, switches
from portal.notifications.events import Event
from portal.notifications.switches import Audience, Switch
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Conflict:
    """The tenant has an event with the same id and other content."""

    event_id: str


def accept(tenant: Tenant, event: Event) -> EventReport | Conflict:
    """Record the event of the tenant in scope, send its mails, and return what became of them.

    An event that was recorded before sends nothing; the report tells what is true of it now.
    """
    event_id = event.id or str(uuid4())
    switch = switches.switch(event.kind.type)
    ignored = why_unwanted(tenant, switch)
    row_id = _record(tenant, event, event_id, ignored)
    if row_id is None:
        db.session.rollback()
        return _repeated(event, event_id)
    if ignored:
        db.session.commit()
        return reports.ignored(event_id, ignored)
    mails, server = _mails(tenant, event, row_id, switch), in_force(tenant.id)
    letters = [prepare(tenant, event, mail, switch, server) for mail in mails]
    db.session.add_all(mails)
    db.session.commit()
    became = [
        attempt(letter) if letter else reports.of_delivery(mail) for mail, letter in zip(mails, letters, strict=True)
    ]
    return reports.of_deliveries(event_id, became)


def _record(tenant: Tenant, event: Event, event_id: str, ignored: Reason | None) -> UUID | None:
    """Return the new row's id, or None where the tenant has an event with this id."""
    row_id = uuid7()
    row = {
        "id": row_id,
        "tenant_id": tenant.id,
        "event_id": event_id,
        "type": event.kind.type,
        "occurred_at": event.time,
        "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
        "data": event.data.public(),
        "secrets_encrypted": None if ignored else RecordedEvent.seal(event.data.secrets(), tenant.id, row_id),
        "ignored_reason": ignored,
    }
    skip_repeated = (
        insert_or_skip(RecordedEvent).values(row).on_conflict_do_nothing(constraint="uq_events_tenant_id_event_id")
    )
    return db.session.scalar(skip_repeated.returning(RecordedEvent.id))


def _repeated(event: Event, event_id: str) -> EventReport | Conflict:
    row = db.session.scalars(select(RecordedEvent).where(RecordedEvent.event_id == event_id)).one()
    if not crypto.keyring().same(event.canonical.encode(), row.fingerprint):
        return Conflict(event_id)
    return reports.of_recorded(row)


def _mails(tenant: Tenant, event: Event, row_id: UUID, switch: Switch) -> list[Delivery]:
    expires_at = datetime.now(UTC) + event.kind.expiry
    return [
        Delivery(
            id=uuid7(),
            tenant_id=tenant.id,
            event_id=row_id,
            audience=audience,
            message_id=f"<{uuid4().hex}@{config.current().host}>",
            attempts=0,
            expires_at=expires_at,
            recipients=[
                DeliveryRecipient(tenant_id=tenant.id, address=address, position=position, status=Status.PENDING)
                for position, address in enumerate(addresses)
            ],
        )
        for audience, addresses in _audiences(event, switch).items()
    ]


def _audiences(event: Event, switch: Switch) -> Mapping[Audience, Sequence[str]]:
    """Return who gets a mail of their own. The user's shows nobody else's address, and nobody stands in for them."""
    user = event.data.addressee
    audiences: dict[Audience, Sequence[str]] = {}
    if switch.audience is not Audience.USER:
        audiences[Audience.RECIPIENTS] = recipients.addresses()
    if switch.audience is Audience.USER or (switch.audience is Audience.BOTH and user):
        audiences[Audience.USER] = [user] if user else []
    return audiences
