"""Counting emails that were not sent: held, failed, expired or overdue ones, of one tenant or of all.

Each query reads a few thousand rows at most, however many there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, and_, func, literal_column, select, text

from portal.database import clock
from portal.database.scope import every_tenant
from portal.deliveries.models import DUE_AT, HAS_DUE_TIME, Delivery
from portal.deliveries.status import HoldReason, Status
from portal.extensions import db

MAX_COUNT: Final = 10_000
RECENT_PERIOD: Final = timedelta(days=1)
OVERDUE_AFTER: Final = timedelta(minutes=5)
# The conditions and times as the indexes are defined.
UNDELIVERED: Final = {
    Status.FAILED: (Delivery.status == literal_column("'failed'"), Delivery.last_attempt_at),
    Status.EXPIRED: (Delivery.status == literal_column("'expired'"), Delivery.expires_at),
}
IS_HELD: Final = Delivery.reason.is_not(None)
# What an email is held for is found out when it is recorded, or when it was last attempted.
HELD: Final = """
    SELECT tenants.id, held.reason, count(*) AS emails, min(held.since) AS since
    FROM tenants, LATERAL (
        SELECT reason, coalesce(last_attempt_at, created_at) AS since FROM deliveries
        WHERE tenant_id = tenants.id AND reason IS NOT NULL ORDER BY id LIMIT :most
    ) AS held
    WHERE {tenants}
    GROUP BY tenants.id, held.reason
"""


@dataclass(frozen=True, slots=True)
class HeldEmails:
    """How many emails of a tenant are held for one reason, and since when the first of them is."""

    tenant_id: int
    reason: HoldReason
    count: int
    since: datetime


def held(tenants: str, values: Mapping[str, Any], limit: int) -> Sequence[HeldEmails]:
    """Return the held emails of tenants, by reason, up to `limit` of each tenant.

    `tenants` is a condition in SQL about the table of tenants, `values` are its parameters.
    """
    rows = db.session.execute(text(HELD.format(tenants=tenants)), {**values, "most": limit})
    return [HeldEmails(row.id, HoldReason(row.reason), row.emails, row.since) for row in rows]


def undelivered() -> Mapping[Status, int]:
    """Return how many emails of the tenant in scope failed, and how many expired, within the last day."""
    since = clock.now() - RECENT_PERIOD
    queries = {
        status: select(func.count(Delivery.id)).where(has_status, at >= since)
        for status, (has_status, at) in UNDELIVERED.items()
    }
    return {status: db.session.scalar(query) or 0 for status, query in queries.items()}


def undelivered_by_tenant() -> dict[int, int]:
    """Return how many emails failed or expired within the last day, by tenant."""
    since, totals = clock.now() - RECENT_PERIOD, Counter[int]()
    for has_status, at in UNDELIVERED.values():
        query = select(Delivery.tenant_id).where(has_status, at >= since).order_by(at.desc())
        totals.update(_count_by_tenant(query))
    return totals


def overdue() -> int:
    """Return how many emails of all tenants should have been attempted minutes ago and were not."""
    is_late = text(f"{DUE_AT} <= :since").bindparams(since=clock.now() - OVERDUE_AFTER)
    late = select(Delivery.id).where(and_(text(HAS_DUE_TIME), is_late)).limit(MAX_COUNT).subquery()
    with every_tenant():
        return db.session.scalar(select(func.count()).select_from(late)) or 0


def _count_by_tenant(query: Select[Any]) -> dict[int, int]:
    rows = query.limit(MAX_COUNT).subquery()
    with every_tenant():
        return dict(db.session.execute(select(rows.c.tenant_id, func.count()).group_by(rows.c.tenant_id)).all())
