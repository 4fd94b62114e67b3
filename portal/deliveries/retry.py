"""Trying a recorded mail again: what is due, and who of all workers may have it."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import joinedload, selectinload

from portal.database import enter_scope, every_tenant
from portal.deliveries import circumstances
from portal.deliveries.attempt import attempt
from portal.deliveries.circumstances import Circumstances
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent, is_due
from portal.deliveries.prepare import prepare
from portal.deliveries.reports import DeliveryReport
from portal.deliveries.states import Status
from portal.extensions import db
from portal.notifications.digest import EVERY_KIND
from portal.notifications.events import Event
from portal.notifications.switches import Audience

OF_A_TENANT = 10  # mails at a time

_lives = Delivery.expires_at > func.now()


def due(most: int) -> Sequence[tuple[int, UUID]]:
    """Return tenant and id of mails whose time has come, or whose lease ran out because a process died.

    A tenant with many of them gets a few at a time, and the first of each tenant come before the second of any.
    """
    nth = func.row_number().over(partition_by=Delivery.tenant_id, order_by=Delivery.id)
    each = select(Delivery.tenant_id, Delivery.id, nth.label("nth")).where(is_due(), _lives).subquery()
    in_turn = select(each.c.tenant_id, each.c.id).where(each.c.nth <= OF_A_TENANT).order_by(each.c.nth, each.c.id)
    with every_tenant():
        return [(tenant_id, delivery_id) for tenant_id, delivery_id in db.session.execute(in_turn.limit(most))]


def retry(tenant_id: int, delivery_id: UUID) -> DeliveryReport | None:
    """Try a mail again and return what became of it; None where it has to wait, or another worker has it."""
    enter_scope(tenant_id)
    delivery = _claim(delivery_id)
    if delivery is None:
        db.session.rollback()
        return None
    event = _restored(delivery.event)
    found = circumstances.find(tenant_id, event.data.switched_by or event.kind.type)
    _add_late_recipients(delivery, found)
    letter = prepare(found, event, delivery)
    db.session.commit()
    return attempt(letter) if letter else None


def _claim(delivery_id: UUID) -> Delivery | None:
    """Return the mail, locked until the next commit."""
    query = (
        select(Delivery)
        .where(Delivery.id == delivery_id, is_due(), _lives)
        .with_for_update(skip_locked=True, of=Delivery)
    )
    with_all = (joinedload(Delivery.event), selectinload(Delivery.recipients))
    return db.session.scalar(query.options(*with_all).execution_options(populate_existing=True))


def _restored(row: RecordedEvent) -> Event:
    kind = EVERY_KIND[row.type]
    data = kind.fields.model_validate(row.data | row.secrets)
    return Event(row.event_id, kind, None, row.occurred_at, data, canonical="", sample=row.sample)


def _add_late_recipients(delivery: Delivery, found: Circumstances) -> None:
    """Give a mail that was held for want of recipients those that the tenant has now."""
    if not delivery.recipients and delivery.audience == Audience.RECIPIENTS:
        delivery.recipients = [
            DeliveryRecipient(tenant_id=delivery.tenant_id, address=address, position=position, status=Status.PENDING)
            for position, address in enumerate(found.addresses)
        ]
