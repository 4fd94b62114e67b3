"""Reading what was delivered: the log of a tenant, newest first, in pages by key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal.deliveries.models import Delivery, RecordedEvent
from portal.deliveries.states import Status, sum_up
from portal.extensions import db

PAGE = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in the log, and what became of it."""

    event: RecordedEvent
    status: Status

    @classmethod
    def of(cls, event: RecordedEvent) -> "Entry":
        """Return the entry of a recorded event."""
        if event.ignored_reason:
            return cls(event, Status.IGNORED)
        return cls(event, sum_up(Status(each.status) for each in event.deliveries))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the log. `older` is the key that the next page begins behind, None on the last one."""

    entries: Sequence[Entry]
    older: UUID | None


@dataclass(frozen=True, slots=True)
class LastSend:
    """The most recent attempt at a mail of the tenant."""

    status: Status
    at: datetime
    text: str | None


def page(before: UUID | None = None) -> Page:
    """Return the newest events of the tenant in scope, or those before one of them."""
    query = select(RecordedEvent).order_by(RecordedEvent.id.desc()).limit(PAGE + 1)
    query = query.options(selectinload(RecordedEvent.deliveries).selectinload(Delivery.recipients))
    if before is not None:
        query = query.where(RecordedEvent.id < before)
    events = db.session.scalars(query).all()
    older = events[PAGE - 1].id if len(events) > PAGE else None
    return Page([Entry.of(event) for event in events[:PAGE]], older)


def last_send() -> LastSend | None:
    """Return the most recent attempt of the tenant in scope, or None."""
    query = select(Delivery).where(Delivery.attempted_at.is_not(None)).order_by(Delivery.attempted_at.desc()).limit(1)
    delivery = db.session.scalar(query.options(selectinload(Delivery.recipients)))
    if delivery is None or delivery.attempted_at is None:
        return None
    text = next((each.text for each in delivery.recipients if each.status != Status.SENT), None)
    return LastSend(Status(delivery.status), delivery.attempted_at, text)
