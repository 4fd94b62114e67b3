"""Recording an event: one transaction for the event, its mails and their recipients, before the first byte of SMTP."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from uuid_utils.compat import uuid4, uuid7

from portal import crypto
from portal.deliveries import reports
from portal.deliveries.attempt import attempt
from portal.deliveries.drafts import Draft, draft
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.reports import EventReport
from portal.deliveries.states import Reason
from portal.extensions import db
from portal.notifications import switches
from portal.notifications.events import Event
from portal.notifications.switches import Switch
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
    reason = _why_ignored(tenant, switch)
    row_id = _record(tenant, event, event_id, reason)
    if row_id is None:
        db.session.rollback()
        return _repeated(event, event_id)
    drafts = [] if reason else draft(tenant, event, row_id, switch)
    _record_drafts(tenant, drafts)
    db.session.commit()
    if reason:
        return reports.ignored(event_id, reason)
    return reports.of_deliveries(event_id, [attempt(each.letter) if each.letter else each.report for each in drafts])


def _why_ignored(tenant: Tenant, switch: Switch) -> Reason | None:
    if tenant.is_suspended:
        return Reason.TENANT_SUSPENDED
    return None if switch.enabled else Reason.SWITCHED_OFF


def _record(tenant: Tenant, event: Event, event_id: str, ignored: Reason | None) -> UUID | None:
    """Return the new row's id, or None where the tenant has an event with this id."""
    row_id = uuid7()
    secrets = event.data.secrets()
    row = {
        "id": row_id,
        "tenant_id": tenant.id,
        "event_id": event_id,
        "type": event.kind.type,
        "occurred_at": event.time,
        "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
        "data": event.data.public(),
        "secrets_encrypted": _seal(secrets, tenant.id, row_id) if secrets and not ignored else None,
        "ignored_reason": ignored,
    }
    skip_repeated = (
        insert_or_skip(RecordedEvent).values(row).on_conflict_do_nothing(constraint="uq_events_tenant_id_event_id")
    )
    return db.session.scalar(skip_repeated.returning(RecordedEvent.id))


def _seal(secrets: Mapping[str, Any], tenant_id: int, row_id: UUID) -> bytes:
    return crypto.keyring().encrypt(json.dumps(secrets), f"events.secrets:{tenant_id}:{row_id}")


def _repeated(event: Event, event_id: str) -> EventReport | Conflict:
    row = db.session.scalars(select(RecordedEvent).where(RecordedEvent.event_id == event_id)).one()
    if not crypto.keyring().same(event.canonical.encode(), row.fingerprint):
        return Conflict(event_id)
    return reports.of_recorded(row)


def _record_drafts(tenant: Tenant, drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    db.session.flush()
    db.session.execute(insert(Delivery), [dict(planned.row) for planned in drafts])
    rows = [
        {
            "delivery_id": planned.row["id"],
            "address": recipient.address,
            "tenant_id": tenant.id,
            "position": position,
            "status": recipient.status,
            "text": recipient.text,
        }
        for planned in drafts
        for position, recipient in enumerate(planned.report.recipients)
    ]
    if rows:
        db.session.execute(insert(DeliveryRecipient), rows)
