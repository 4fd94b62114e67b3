"""Mails that were not sent: held, failed or expired, or overdue; of the tenant in scope, or counted by tenant.

Each looks at no more than some thousands of them, whatever there is.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, and_, func, literal_column, select, text

from portal.database import every_tenant
from portal.deliveries.models import DUE_AT, WAITS, Delivery
from portal.deliveries.states import Reason, Status
from portal.extensions import db

MOST: Final = 10_000
LATELY: Final = timedelta(days=1)
OVERDUE_AFTER: Final = timedelta(minutes=5)
# When it was certain: in the words of the index of each.
UNDELIVERED: Final = {
    Status.FAILED: (Delivery.status == literal_column("'failed'"), Delivery.attempted_at),
    Status.EXPIRED: (Delivery.status == literal_column("'expired'"), Delivery.expires_at),
}
HELD: Final = Delivery.reason.is_not(None)


def held_by_reason() -> Mapping[Reason, int]:
    """Return how many mails of the tenant in scope are held, by reason."""
    held = select(Delivery.reason).where(HELD).order_by(Delivery.id).limit(MOST).subquery()
    found = db.session.execute(select(held.c.reason, func.count()).group_by(held.c.reason))
    return {Reason(reason): int(number) for reason, number in found}


def undelivered() -> Mapping[Status, int]:
    """Return how many mails of the tenant in scope failed, and how many expired, within the last day."""
    since = datetime.now(UTC) - LATELY
    queries = {
        status: select(func.count(Delivery.id)).where(is_it, moment >= since)
        for status, (is_it, moment) in UNDELIVERED.items()
    }
    return {status: db.session.scalar(query) or 0 for status, query in queries.items()}


def held_by_tenant() -> dict[int, int]:
    """Return how many mails are held, by tenant."""
    held = select(Delivery.tenant_id).where(HELD, Delivery.expires_at > func.now()).order_by(Delivery.expires_at)
    return _by_tenant(held)


def undelivered_by_tenant() -> dict[int, int]:
    """Return how many mails failed or expired within the last day, by tenant."""
    since, found = datetime.now(UTC) - LATELY, dict[int, int]()
    for is_it, moment in UNDELIVERED.values():
        counted = _by_tenant(select(Delivery.tenant_id).where(is_it, moment >= since).order_by(moment.desc()))
        found = {tenant_id: found.get(tenant_id, 0) + counted.get(tenant_id, 0) for tenant_id in found | counted}
    return found


def overdue() -> int:
    """Return how many mails of all tenants should have been tried minutes ago, and were not."""
    due_at = text(f"{DUE_AT} <= :since").bindparams(since=datetime.now(UTC) - OVERDUE_AFTER)
    late = select(Delivery.id).where(and_(text(WAITS), due_at)).limit(MOST).subquery()
    with every_tenant():
        return db.session.scalar(select(func.count()).select_from(late)) or 0


def _by_tenant(mails: Select[Any]) -> dict[int, int]:
    found = mails.limit(MOST).subquery()
    with every_tenant():
        return dict(db.session.execute(select(found.c.tenant_id, func.count()).group_by(found.c.tenant_id)).all())
