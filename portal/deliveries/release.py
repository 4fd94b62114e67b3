"""Releases held emails when settings change.

A request only records that settings changed. Workers release the emails of each tenant in batches, so that a change for
many emails is as quick as one for none.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, TextClause, and_, case, exists, func, or_, select, text, true, update
from sqlalchemy.orm import InstrumentedAttribute

from portal.database.scope import every_tenant
from portal.deliveries import shared_limit
from portal.deliveries.models import (
    DUE_AT,
    HAS_DUE_TIME,
    Delivery,
    DeliveryRecipient,
    ReleaseRequest,
    SharedServerUsage,
)
from portal.deliveries.status import HoldReason, Status
from portal.extensions import db
from portal.signals import settings_changed

BATCH_SIZE: Final = 1000
# An email that may have been sent, or that a summary email lists, is sent only if a person decides so.
NOT_RELEASABLE: Final = {HoldReason.MAY_HAVE_BEEN_SENT, HoldReason.THROTTLED, HoldReason.QUIET_HOURS}
RELEASABLE_REASONS: Final = tuple({*HoldReason} - NOT_RELEASABLE)

# A change of the system's mail server is one for each tenant that has emails to release and no mail server of its own.
EXPAND_SYSTEM_REQUESTS: Final = f"""
    WITH request AS (
        DELETE FROM release_requests WHERE id IN (
            SELECT id FROM release_requests WHERE tenant_id IS NULL FOR UPDATE SKIP LOCKED
        )
        RETURNING server_changed
    )
    INSERT INTO release_requests (tenant_id, server_changed)
    SELECT tenants.id, changed.server FROM tenants, (SELECT bool_or(server_changed) AS server FROM request) AS changed
    WHERE changed.server IS NOT NULL
        AND NOT EXISTS (SELECT FROM mail_servers WHERE tenant_id = tenants.id)
        AND (
            (SELECT id FROM deliveries WHERE tenant_id = tenants.id AND reason IS NOT NULL LIMIT 1) IS NOT NULL
            OR changed.server
            AND (SELECT id FROM deliveries WHERE tenant_id = tenants.id AND {HAS_DUE_TIME} LIMIT 1) IS NOT NULL
        )
    FOR KEY SHARE OF tenants
"""  # noqa: S608 (contains no input)


def init_app() -> None:
    """Release held emails when settings change."""
    settings_changed.connect(_request_release)


def _request_release(tenant_id: int | None, server_changed: bool = False) -> None:
    """Ask the workers to release the held emails of a tenant, within the caller's transaction. None: the system's."""
    with every_tenant():
        db.session.add(ReleaseRequest(tenant_id=tenant_id, server_changed=server_changed))
        db.session.flush()


def release_requested(on_batch: Callable[[], object] = lambda: None) -> None:
    """Release what was requested: a batch of each tenant in turn, each in a transaction of its own."""
    of_system, of_tenant = ReleaseRequest.tenant_id.is_(None), ReleaseRequest.tenant_id.is_not(None)
    with every_tenant():
        if db.session.scalar(select(ReleaseRequest.id).where(of_system).limit(1)):
            db.session.execute(text(EXPAND_SYSTEM_REQUESTS))
        query = select(ReleaseRequest.id).where(of_tenant).order_by(ReleaseRequest.tenant_id)
        requests = deque(db.session.scalars(query))
        db.session.commit()
        while requests:
            request_id = requests.popleft()
            if _release_batch(request_id):
                requests.append(request_id)
            on_batch()


def release_within_limits(on_batch: Callable[[], object] = lambda: None) -> None:
    """Release held emails of tenants that may use the system's mail server again, as many as the limits allow."""
    hourly, daily = shared_limit.limits()
    usage = SharedServerUsage
    hour = case((usage.hour_started_at <= func.now() - timedelta(hours=1), 0), else_=usage.hour_count)
    day = case((usage.day_started_at <= func.now() - timedelta(days=1), 0), else_=usage.day_count)
    free = func.least(hourly - hour, daily - day, BATCH_SIZE)
    is_held = Delivery.reason == HoldReason.SHARED_SERVER_LIMIT
    has_held = exists().where(Delivery.tenant_id == usage.tenant_id, is_held)
    query = select(usage.tenant_id, free).where(free > 0, has_held)
    with every_tenant():
        for tenant_id, count in db.session.execute(query).all():
            make_due(and_(Delivery.tenant_id == tenant_id, is_held), limit=count)
            db.session.commit()
            on_batch()


def _release_batch(request_id: int) -> bool:
    """Release a batch of held emails, then of queued ones, and return whether there is more to release."""
    locked = select(ReleaseRequest).where(ReleaseRequest.id == request_id).with_for_update(skip_locked=True)
    request = db.session.scalar(locked.execution_options(populate_existing=True))
    if request is None:  # another worker has it
        db.session.rollback()
        return False
    # Not attempted with the new settings yet.
    is_older = or_(Delivery.last_attempt_at.is_(None), Delivery.last_attempt_at <= request.requested_at)
    is_theirs = and_(Delivery.tenant_id == request.tenant_id, is_older)
    # Oldest first: those that workers hold again meanwhile are not released twice.
    is_held = Delivery.reason.in_(RELEASABLE_REASONS)
    is_next = Delivery.id > request.last_id if request.last_id else true()
    released = make_due(and_(is_theirs, is_held, is_next), limit=BATCH_SIZE)
    request.last_id = max((delivery_id for delivery_id, _ in released), default=request.last_id)
    if len(released) < BATCH_SIZE and request.server_changed:
        is_queued = Delivery.next_attempt_at > func.now()
        released = make_due(and_(is_theirs, is_queued), order_by=text(DUE_AT), limit=BATCH_SIZE)
    if len(released) < BATCH_SIZE:
        db.session.delete(request)
    db.session.commit()
    return len(released) == BATCH_SIZE


def make_due(
    condition: ColumnElement[bool],
    *,
    order_by: ColumnElement[Any] | TextClause | InstrumentedAttribute[UUID] = Delivery.id,
    limit: int | None = None,
) -> Sequence[tuple[UUID, str]]:
    """Make emails due that are not in progress, and return their ids and Message-IDs."""
    # They are locked before the conditions are checked: an email that a worker takes, or a person discards, at the same
    # time is left alone.
    locked = (
        select(Delivery.id, Delivery.expires_at)
        .where(condition, Delivery.lease_until.is_(None))
        .order_by(order_by)
        .limit(limit)
        .with_for_update()
        .cte("locked")
    )
    released_recipients = (
        update(DeliveryRecipient)
        .where(DeliveryRecipient.delivery_id == locked.c.id, DeliveryRecipient.status == Status.HELD)
        .values(status=Status.DEFERRED)
        .returning(DeliveryRecipient.delivery_id)
    )
    status = func.replace(Delivery.status, Status.HELD, Status.DEFERRED)
    statement = (
        update(Delivery)
        .where(Delivery.id == locked.c.id)
        .values(
            status=status, reason=None, held_until=None, next_attempt_at=func.least(func.now(), locked.c.expires_at)
        )
        .returning(Delivery.id, Delivery.message_id)
        .add_cte(released_recipients.cte("released_recipients"))
        .execution_options(synchronize_session=False)
    )
    return [(delivery_id, message_id) for delivery_id, message_id in db.session.execute(statement)]
