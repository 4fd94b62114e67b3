"""Reading the audit trail, newest first."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, or_, select

from portal.audit.models import AuditEntry
from portal.database.scope import enter_scope, scope_of_owner
from portal.database.uuid7 import lowest_uuid7
from portal.extensions import db
from portal.web.pagination import Page, key_range


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to show: by actor, by action, from a time until before another. An empty field shows all."""

    actor: str = ""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None


def page(owner: int | None, filters: AuditFilter, before: UUID | None, size: int) -> Page[AuditEntry, UUID]:
    """Return the newest entries of a tenant, or of everybody for None, or those before one of them."""
    first, end = key_range(filters.since, filters.until, before)
    query = select(AuditEntry).where(AuditEntry.id >= first, AuditEntry.id < end)
    if filters.actor:
        query = query.where(AuditEntry.actor == filters.actor)
    if filters.action:
        query = query.where(AuditEntry.action == filters.action)
    if owner is not None:
        enter_scope(owner)  # a file is made when the request's scope has ended
    with scope_of_owner(owner):
        entries = db.session.scalars(query.order_by(AuditEntry.id.desc()).limit(size + 1)).all()
    return Page.of(entries, size, lambda entry: entry.id)


def in_time_spans(
    tenant_id: int, actions: Collection[str], spans: Iterable[tuple[datetime, datetime]]
) -> Sequence[AuditEntry]:
    """Return a tenant's entries about these actions within any of these time spans, oldest first."""
    times = [and_(AuditEntry.id >= lowest_uuid7(begin), AuditEntry.id < lowest_uuid7(end)) for begin, end in spans]
    query = select(AuditEntry).where(AuditEntry.tenant_id == tenant_id, or_(*times), AuditEntry.action.in_(actions))
    return db.session.scalars(query.order_by(AuditEntry.id)).all()
