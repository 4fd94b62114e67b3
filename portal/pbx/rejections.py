"""Rejected requests, kept for a week so that a key's owner sees why: counted by key, reason and hour."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, select

from portal.database import clock, fast_sql
from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import every_tenant, scope_of_owner
from portal.extensions import db
from portal.monitoring.counters import REJECTED, note
from portal.pbx.models import RejectedRequest
from portal.pbx.rate_limit import InMemoryRateLimit
from portal.signals import retention_due
from portal.tenants.models import Tenant

RETENTION = timedelta(days=7)
MAX_LISTED_REJECTIONS = 50
MAX_DETAIL_LENGTH = 500
RECORD_SQL = """
    INSERT INTO rejected_requests AS recorded
        (tenant_id, api_key_id, reason, event_type, hour, count, last_request_at, ip_address, detail)
    VALUES (%(owner_id)s, %(key_id)s, %(reason)s, %(event_type)s, date_trunc('hour', now(), 'UTC'),
        %(count)s, now(), %(ip_address)s, %(detail)s)
    ON CONFLICT ON CONSTRAINT uq_rejected_requests_group DO UPDATE SET count = recorded.count + excluded.count,
        last_request_at = excluded.last_request_at, ip_address = excluded.ip_address, detail = excluded.detail
"""


class RejectionGroup(NamedTuple):
    """Rejected requests that are counted together. Without a known key they have no owner."""

    owner_id: int | None
    key_id: int | None
    reason: str
    event_type: str | None


class RejectionCounter:
    """Keeps a flood of rejected requests away from the database: above a limit they are only counted at first."""

    def __init__(self, limit_per_key: str, limit_in_all: str) -> None:
        self._limit_per_key, self._limit_in_all = InMemoryRateLimit(limit_per_key), InMemoryRateLimit(limit_in_all)
        self._unrecorded: Counter[RejectionGroup] = Counter()  # at most one for each key and reason
        self._lock = Lock()

    def count(self, group: RejectionGroup) -> int:
        """Count a request. Return how many of its group to record now: 0 if the limit of this minute is reached."""
        with self._lock:
            self._unrecorded[group] += 1
            if self._limit_per_key.seconds_to_wait(group.key_id) or self._limit_in_all.seconds_to_wait(None):
                return 0
            return self._unrecorded.pop(group)


_counter = RejectionCounter("30 per minute", "300 per minute")


def init_app() -> None:
    """Delete old rejections whenever the portal deletes old rows."""
    retention_due.connect(delete_old)


def record(group: RejectionGroup, ip_address: str | None, detail: str) -> None:
    """Record a rejected request, with the detail for the key's owner. The response does not depend on it."""
    note((REJECTED, 1, (group.reason,)))
    if count := _counter.count(group):
        values = {"count": count, "ip_address": ip_address, "detail": detail[:MAX_DETAIL_LENGTH] or None}
        with suppress(*DATABASE_ERRORS), every_tenant():  # the key may be the system's
            fast_sql.run(RECORD_SQL, group._asdict() | values)


def list_recent(owner: Tenant | None) -> Sequence[RejectedRequest]:
    """Return the last rejected requests of the tenant in scope; for None those with a system key or no known key."""
    query = select(RejectedRequest).where(*_is_recent(owner)).order_by(RejectedRequest.last_request_at.desc())
    with scope_of_owner(owner):
        return db.session.scalars(query.limit(MAX_LISTED_REJECTIONS)).all()


def count_recent(owner: Tenant | None) -> int:
    """Return how many requests were rejected in the last week, counted as `list_recent` lists them."""
    query = select(func.sum(RejectedRequest.count)).where(*_is_recent(owner))
    with scope_of_owner(owner):
        return int(db.session.scalar(query) or 0)


def _is_recent(owner: Tenant | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    is_owned = RejectedRequest.tenant_id == (owner.id if owner else None)
    return is_owned, RejectedRequest.last_request_at > clock.now() - RETENTION


def delete_old(_sender: object = None) -> None:
    """Delete rejections that are older than a week."""
    with every_tenant():
        db.session.execute(delete(RejectedRequest).where(RejectedRequest.hour < clock.now() - RETENTION))
        db.session.commit()
