"""Rejected calls, kept for a week so that a key's owner sees why: counted by key, reason and hour, without contents."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, select

from portal import statements
from portal.database import DATABASE_FAULTS, every_tenant, scope_of
from portal.extensions import db
from portal.pbx.models import RejectedCall
from portal.pbx.rate import Rate
from portal.signals import purging
from portal.tenants.models import Tenant

KEPT = timedelta(days=7)
MOST_LISTED = 50
LONGEST_DETAIL = 500  # characters
NOBODY = 0  # no key has this id
NOTE = """
    INSERT INTO rejected_calls AS noted
        (tenant_id, key_id, reason, event_type, hour, count, last_at, address, detail)
    VALUES (%(owner_id)s, %(key_id)s, %(reason)s, %(event_type)s, date_trunc('hour', now(), 'UTC'),
        %(count)s, now(), %(address)s, %(detail)s)
    ON CONFLICT ON CONSTRAINT uq_rejected_calls_fold DO UPDATE SET count = noted.count + excluded.count,
        last_at = excluded.last_at, address = excluded.address, detail = excluded.detail
"""


class Fold(NamedTuple):
    """What rejected calls have in common that are counted together. An unknown key is nobody's."""

    owner_id: int | None
    key_id: int | None
    reason: str
    event_type: str | None


class Tally:
    """Keeps a flood of rejected calls away from the database: beyond a rate they are counted, and noted later."""

    def __init__(self, of_key: str, of_all: str) -> None:
        self._of_key, self._of_all = Rate(of_key), Rate(of_all)
        self._waiting: Counter[Fold] = Counter()  # as many as there are keys and reasons, at the most
        self._lock = Lock()

    def due(self, fold: Fold) -> int:
        """Count a call, and return how many of its like are to be noted now: 0 where too many were in this minute."""
        with self._lock:
            self._waiting[fold] += 1
            if self._of_key.wait(fold.key_id or NOBODY) or self._of_all.wait(NOBODY):
                return 0
            return self._waiting.pop(fold)


_tally = Tally("30 per minute", "300 per minute")


def init_app() -> None:
    """Delete old ones whenever the portal deletes what is old."""
    purging.connect(purge)


def note(fold: Fold, address: str | None, detail: str) -> None:
    """Count a rejected call, with what was said to it. A database that does not answer changes nothing about that."""
    count = _tally.due(fold)
    if count:
        values = fold._asdict() | {"count": count, "address": address, "detail": detail[:LONGEST_DETAIL] or None}
        with suppress(*DATABASE_FAULTS), every_tenant():  # it may be the system's
            statements.run(NOTE, values)


def recent(owner: Tenant | None) -> Sequence[RejectedCall]:
    """Return the last rejected calls of the tenant in scope; for None of the system's keys and of unknown ones."""
    query = select(RejectedCall).where(*_of_the_week(owner)).order_by(RejectedCall.last_at.desc()).limit(MOST_LISTED)
    with scope_of(owner):
        return db.session.scalars(query).all()


def total(owner: Tenant | None) -> int:
    """Return how many calls were rejected in the last week, as `recent` lists them."""
    query = select(func.sum(RejectedCall.count)).where(*_of_the_week(owner))
    with scope_of(owner):
        return int(db.session.scalar(query) or 0)


def _of_the_week(owner: Tenant | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    owned = RejectedCall.tenant_id == (owner.id if owner else None)
    return owned, RejectedCall.last_at > datetime.now(UTC) - KEPT


def purge(_sender: object = None) -> None:
    """Delete those that are older than a week."""
    with every_tenant():
        db.session.execute(delete(RejectedCall).where(RejectedCall.hour < datetime.now(UTC) - KEPT))
        db.session.commit()
