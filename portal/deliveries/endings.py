"""How a mail ends without being sent, and how what is no longer needed is forgotten."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, delete, func, or_, select

from portal import config
from portal.accounts import sessions, throttle
from portal.database import every_tenant, first_key
from portal.deliveries import tally
from portal.deliveries.attempt import erase_secrets
from portal.deliveries.models import Delivery, RecordedEvent, is_due
from portal.deliveries.states import OPEN, Status, sum_up
from portal.extensions import db
from portal.provisioning import tokens
from portal.signals import purging

BATCH = 1000


def expire() -> int:
    """Give up the mails whose time is over, with the last thing that was said about them, and return how many.

    No mail waits longer than it lives, so what is over is due, or held: few to look at, whatever waits.
    """
    query = (
        select(Delivery)
        .where(or_(is_due(), Delivery.reason.is_not(None)), Delivery.expires_at <= func.now())
        .order_by(Delivery.expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    with every_tenant():
        expired = db.session.scalars(query).all()
        end_all(expired, Status.EXPIRED)
        db.session.commit()
    return len(expired)


def end_all(deliveries: Iterable[Delivery], ending: Status) -> None:
    """End what is still open of mails, without a commit, in the order of their events, which are locked one by one."""
    for delivery in sorted(deliveries, key=lambda each: each.event_id):
        _end(delivery, ending)


def _end(delivery: Delivery, ending: Status) -> None:
    for each in delivery.recipients:
        if each.status in OPEN:
            each.status = ending
    delivery.status = sum_up([Status(each.status) for each in delivery.recipients] or [ending])
    delivery.lease_until = delivery.next_attempt_at = delivery.reason = None
    db.session.flush()
    erase_secrets(delivery.event_id)


def purge() -> int:
    """Delete events that are older than the retention allows, and what hangs on them, and return how many.

    Each batch is a transaction of its own and goes on behind the one before, so that it is as short as the first.
    """
    oldest = datetime.now(UTC) - timedelta(days=config.current().retention_days)
    deleted, last = 0, UUID(int=0)
    with every_tenant():
        while batch := db.session.scalars(_oldest_events(last, first_key(oldest))).all():
            db.session.execute(delete(RecordedEvent).where(RecordedEvent.id.in_(batch)))
            db.session.commit()
            deleted, last = deleted + len(batch), batch[-1]
    tally.forget(before=oldest)
    tokens.erase_expired()
    tokens.delete(before=first_key(oldest))
    purging.send()
    sessions.purge()
    throttle.purge()
    return deleted


def _oldest_events(after: UUID, before: UUID) -> Select[UUID]:
    query = select(RecordedEvent.id).where(RecordedEvent.id > after, RecordedEvent.id < before)
    return query.order_by(RecordedEvent.id).limit(BATCH)
