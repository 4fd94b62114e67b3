"""Reading the audit trail, newest first, in pages by key."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Select, and_, or_, select

from portal.audit.models import AuditEntry
from portal.database import enter_scope, first_key, scope_of
from portal.extensions import db

PAGE: Final = 50
BATCH: Final = 500
NEWEST: Final = UUID(int=2**128 - 1)
OLDEST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: of one person, about one action, since a moment and before another; all where nothing is said."""

    person: str = ""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the trail. `older` is the key that the next page begins behind, None on the last one."""

    entries: Sequence[AuditEntry]
    older: UUID | None


NOTHING = Page((), None)


def page(owner: int | None, wanted: Wanted, before: UUID | None = None) -> Page:
    """Return a tenant's newest entries, or everybody's for None, or those before one of them."""
    with _scope(owner):
        found = db.session.scalars(_query(wanted, before or NEWEST).limit(PAGE + 1)).all()
    return Page(found[:PAGE], found[PAGE - 1].id if len(found) > PAGE else None)


def batch(owner: int | None, wanted: Wanted, before: UUID) -> Sequence[AuditEntry]:
    """Return the next of all of a tenant's entries, or of everybody's for None."""
    with _scope(owner):
        return db.session.scalars(_query(wanted, before).limit(BATCH)).all()


def within(
    tenant_id: int, actions: Collection[str], spans: Iterable[tuple[datetime, datetime]]
) -> Sequence[AuditEntry]:
    """Return what was done in these ways in a tenant within any of these spans of time, oldest first."""
    times = [and_(AuditEntry.id >= first_key(begin), AuditEntry.id < first_key(end)) for begin, end in spans]
    query = select(AuditEntry).where(AuditEntry.tenant_id == tenant_id, or_(*times), AuditEntry.action.in_(actions))
    return db.session.scalars(query.order_by(AuditEntry.id)).all()


@contextmanager
def _scope(owner: int | None) -> Iterator[None]:
    """Enter the scope here: what is streamed is read when the view's session, and its scope, have ended."""
    if owner is not None:
        enter_scope(owner)
    with scope_of(owner):
        yield


def _query(wanted: Wanted, before: UUID) -> Select[AuditEntry]:
    until = first_key(wanted.until) if wanted.until else NEWEST
    since = first_key(wanted.since) if wanted.since else OLDEST
    query = select(AuditEntry).where(AuditEntry.id < min(before, until), AuditEntry.id >= since)
    if wanted.person:
        query = query.where(AuditEntry.actor == wanted.person)
    if wanted.action:
        query = query.where(AuditEntry.action == wanted.action)
    return query.order_by(AuditEntry.id.desc())
