"""Emails that end without being sent: they expire, or a person discards them."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import selectinload

from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.database.scope import every_tenant
from portal.deliveries.attempt import erase_secrets
from portal.deliveries.models import Delivery, hold_has_ended, is_due
from portal.deliveries.status import UNFINISHED, Status, combine
from portal.extensions import db
from portal.monitoring.counters import EMAILS, note

BATCH_SIZE: Final = 1000


def expire_deliveries() -> int:
    """Expire a batch of emails whose time is over, and return how many. They keep their last replies.

    No email is queued beyond its expiry, so each of these is due or held: an index finds them, however many emails are
    queued.
    """
    query = (
        select(Delivery)
        .where(or_(is_due(), hold_has_ended()), Delivery.expires_at <= func.now())
        .where(Delivery.held_until.is_(None))  # a summary lists it, even if the workers are late
        .order_by(Delivery.expires_at)
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
        .options(selectinload(Delivery.recipients))
    )
    with every_tenant():
        expired = db.session.scalars(query).all()
        end_deliveries(expired, Status.EXPIRED)
        db.session.commit()
    for delivery in expired:
        label = delivery.mail_server_label
        owner = "none" if label is None else "system" if label == SYSTEM_MAIL_SERVER else "tenant"
        note((EMAILS, 1, ("expired", owner)))
    return len(expired)


def end_deliveries(deliveries: Collection[Delivery], status: Status) -> None:
    """Give unfinished emails their last status, within the caller's transaction."""
    for delivery in deliveries:
        for recipient in delivery.recipients:
            if recipient.status in UNFINISHED:
                recipient.status = status
        delivery.status = combine([Status(recipient.status) for recipient in delivery.recipients] or [status])
        delivery.lease_until = delivery.next_attempt_at = delivery.held_until = delivery.reason = None
    erase_secrets({delivery.event_id for delivery in deliveries})
