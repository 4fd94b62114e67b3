"""Retrying recorded emails: which tenants have some that are due, and which worker gets one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Final
from uuid import UUID

from sqlalchemy import case, func, select, text, update
from sqlalchemy.orm import joinedload, selectinload

from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import enter_scope, every_tenant
from portal.deliveries import shared_limit
from portal.deliveries.attempt import attempt_delivery, found_no_slot
from portal.deliveries.context import EventContext, load_context
from portal.deliveries.message import OutgoingMessage, build_message
from portal.deliveries.models import DUE_AT, HAS_DUE_TIME, Delivery, DeliveryRecipient, RecordedEvent, is_due
from portal.deliveries.schedule import MAX_DELAY_AFTER_PAUSE, PATIENT_LEASE_DURATION, take_lease
from portal.deliveries.status import Status
from portal.events.parsing import Event
from portal.events.recipient_emails import QUIET_SUMMARY, SETTINGS_LINK
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.extensions import db
from portal.mail_servers.service import paused_until
from portal.mail_servers.smtp.client import PATIENT_TIMEOUTS, WORKER_TIMEOUTS
from portal.notifications.settings import Audience, EventSetting

BUSY_TIME: Final = 1.0  # seconds
FIRST_PATIENT_ATTEMPT: Final = 3
MAX_POSTPONED: Final = 1000  # emails in one statement
DELAY_AFTER_ERROR: Final = timedelta(minutes=5)

_busy_until: dict[int, float] = {}  # by tenant: no other thread of this process joins those that send its emails
_not_expired = Delivery.expires_at > func.now()

# The first due time of each tenant. Postgres finds each by one look into the index, however many emails are queued.
TENANTS_WITH_DUE: Final = f"""
    WITH RECURSIVE first_due (tenant_id, at) AS (
        (SELECT tenant_id, {DUE_AT} FROM deliveries WHERE {HAS_DUE_TIME} AND tenant_id > 0
            ORDER BY tenant_id, {DUE_AT} LIMIT 1)
        UNION ALL
        SELECT next.* FROM first_due, LATERAL (
            SELECT tenant_id, {DUE_AT} FROM deliveries WHERE {HAS_DUE_TIME} AND tenant_id > first_due.tenant_id
                ORDER BY tenant_id, {DUE_AT} LIMIT 1
        ) AS next
    )
    SELECT tenant_id FROM first_due WHERE at <= now() ORDER BY tenant_id <= :after, tenant_id
"""  # noqa: S608 (contains no input)


def tenants_with_due(after: int = 0) -> Sequence[int]:
    """Return the tenants with due emails, in turn: those after the given one come first.

    An email is due if its time has come, or if a dead process left its lease. A tenant whose mail server has no free
    slot in this process is left to the threads that use the slots.
    """
    with every_tenant():
        due = db.session.scalars(text(TENANTS_WITH_DUE), {"after": after}).all()
    return [tenant_id for tenant_id in due if _busy_until.get(tenant_id, 0) < time.monotonic()]


def retry_next(tenant_id: int, on_lease: Callable[[], object] = lambda: None) -> bool:
    """Attempt the email of the tenant that has been due for longest, and return whether to go on with the next one.

    `on_lease` is called before the email is sent, which may take long.

    Raises:
        DATABASE_ERRORS: the database does not answer.
        Exception: the email cannot be read or built. It is postponed, so that it does not keep others from their turn.
    """
    enter_scope(tenant_id)
    delivery = _lock_next()
    if delivery is None:
        db.session.rollback()
        return False
    delivery_id = delivery.id
    try:
        message, postponed = _lease(tenant_id, delivery)
        if message is None:
            return postponed in {0, MAX_POSTPONED}
        on_lease()
        timeouts = PATIENT_TIMEOUTS if _needs_patience(message.attempts) else WORKER_TIMEOUTS
        if found_no_slot(attempt_delivery(message, timeouts).recipients):
            _busy_until[tenant_id] = time.monotonic() + BUSY_TIME
            return False
        return True
    except DATABASE_ERRORS:
        raise
    except Exception as error:
        error.add_note(f"This was email {delivery_id}.")
        db.session.rollback()
        _postpone_one(delivery_id)
        raise


def _needs_patience(attempt: int) -> bool:
    """Return whether the mail server gets all the time that RFC 5321 asks for, with a long lease.

    Other attempts have a short lease, as another worker must not wait long for the emails of one that died.
    """
    return attempt >= FIRST_PATIENT_ATTEMPT


def _lock_next() -> Delivery | None:
    """Return the email that has been due for longest, locked until the next commit, of those that no other worker has.

    None: nothing is due, or other workers have all of it.
    """
    query = (
        select(Delivery)
        .where(is_due(), _not_expired)
        .order_by(text(DUE_AT), Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Delivery)
        .options(joinedload(Delivery.event), selectinload(Delivery.recipients))
    )
    return db.session.scalar(query.execution_options(populate_existing=True))


def _lease(tenant_id: int, delivery: Delivery) -> tuple[OutgoingMessage | None, int]:
    """Commit the lease of an email, and return its message, or None if it has to wait.

    If its mail server is paused, the tenant's other due emails wait too. Their number is returned.
    """
    event = _event_of(delivery.event)
    context = load_context(tenant_id, event.data.uses_setting_of or event.event_type.type)
    if event.event_type in (QUIET_SUMMARY, SETTINGS_LINK):  # there is no switch for these
        context = replace(context, setting=EventSetting(enabled=True))
    _add_late_recipients(delivery, context, event)
    patience = PATIENT_LEASE_DURATION if _needs_patience(delivery.attempts + 1) else None
    route = shared_limit.hold_if_over(tenant_id, delivery, take_lease(context, delivery, patience))
    message = build_message(context, event, delivery, route) if route else None
    pause_end = paused_until(context.mail_server) if context.mail_server else None
    postponed = _postpone_due(pause_end) if pause_end else 0
    db.session.commit()
    return message, postponed


def _postpone_due(pause_end: datetime) -> int:
    """Postpone the due emails of the tenant in scope to the end of a pause, and return how many."""
    due = (
        select(Delivery.id)
        .where(is_due(), Delivery.lease_until.is_(None))
        .order_by(text(DUE_AT))
        .limit(MAX_POSTPONED)
        .with_for_update(skip_locked=True)
    )
    at = func.least(pause_end + MAX_DELAY_AFTER_PAUSE * func.random(), Delivery.expires_at)
    statement = update(Delivery).where(Delivery.id.in_(due)).values(next_attempt_at=at).returning(Delivery.id)
    return len(db.session.scalars(statement.execution_options(synchronize_session=False)).all())


def _postpone_one(delivery_id: UUID) -> None:
    """Postpone an email whose attempt failed in the portal itself."""
    later = func.now() + DELAY_AFTER_ERROR
    times = {
        "lease_until": case((Delivery.lease_until.is_not(None), later)),
        "next_attempt_at": case((Delivery.next_attempt_at.is_not(None), func.least(later, Delivery.expires_at))),
    }
    statement = update(Delivery).where(Delivery.id == delivery_id, is_due()).values(times)
    db.session.execute(statement.execution_options(synchronize_session=False))
    db.session.commit()


def _event_of(row: RecordedEvent) -> Event:
    event_type = ALL_EVENT_TYPES[row.type]
    data = event_type.fields.model_validate(row.data | row.secrets)
    return Event(row.external_id, event_type, None, row.occurred_at, data, canonical="", sample=row.is_sample)


def _add_late_recipients(delivery: Delivery, context: EventContext, event: Event) -> None:
    """Add the tenant's current recipients to an email that was held because there were none.

    It is late already, so it does not wait for the end of quiet hours too.
    """
    if not delivery.recipients and delivery.audience == Audience.RECIPIENTS:
        decision = context.decide(event.data.uses_setting_of or event.event_type.type, event.data.queue_names)
        delivery.recipients = [
            DeliveryRecipient(tenant_id=delivery.tenant_id, email=email, position=position, status=Status.PENDING)
            for position, email in enumerate(chain(decision.now, *decision.quiet.values()))
        ]
