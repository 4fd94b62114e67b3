"""Reading what was delivered: the log of a tenant, newest first, in pages by key."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal.deliveries import search
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import EVERYTHING, Wanted
from portal.deliveries.states import Status, sum_up
from portal.extensions import db

PAGE = 50
A_MOMENT = timedelta(seconds=30)  # as long as a page of mails takes to go out at the pace of `mending`


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in the log, and what a person may do about it. `again`: a person had it sent once more."""

    delivery: Delivery
    again: bool

    @property
    def is_open(self) -> bool:
        """Whether it is held or waits, so that it can be discarded. One that is being sent right now is neither."""
        waits = self.delivery.reason is not None or self.delivery.next_attempt_at is not None
        return waits and self.delivery.lease_until is None

    @property
    def is_due(self) -> bool:
        """Whether a worker takes it in a moment, without anybody's doing."""
        at = self.delivery.next_attempt_at
        return self.is_open and at is not None and at <= datetime.now(UTC) + A_MOMENT

    @property
    def has_next_try(self) -> bool:
        """Whether it is tried again, and does not expire before."""
        at = self.delivery.next_attempt_at
        return at is not None and at < self.delivery.expires_at

    @property
    def is_under_way(self) -> bool:
        """Whether there will be something new to tell of it."""
        return self.is_open or self.delivery.lease_until is not None

    @property
    def can_go_again(self) -> bool:
        """Whether it has ended in a way that a person may want to repeat."""
        ended = {Status.SENT, Status.PARTIAL, Status.FAILED, Status.EXPIRED}
        return self.delivery.status in ended and not self.is_open and self.delivery.lease_until is None

    @property
    def replies(self) -> Iterator[Sequence[DeliveryRecipient]]:
        """The recipients, those together that the mail server told the same."""
        for _, same in groupby(self.delivery.recipients, lambda each: (each.status, each.code, each.text)):
            yield list(same)


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

    @property
    def mails(self) -> Sequence[Mail]:
        """The event's mails, oldest first."""
        return mails(self.event.deliveries)

    @property
    def is_under_way(self) -> bool:
        """Whether there will be something new to tell of one of its mails."""
        return any(mail.is_under_way for mail in self.mails)


def mails(deliveries: Iterable[Delivery]) -> Sequence[Mail]:
    """Return the mails of one event, which are given oldest first."""
    seen: set[str] = set()
    found = []
    for delivery in deliveries:
        found.append(Mail(delivery, again=delivery.audience in seen))
        seen.add(delivery.audience)
    return found


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the log. `older` is the key that the next page begins behind, None on the last one.

    `looked_back_to` is when the oldest event was recorded that was looked at, where the page is not full for that.
    """

    entries: Sequence[Entry]
    older: UUID | None = None
    looked_back_to: datetime | None = None


NOTHING = Page(())


@dataclass(frozen=True, slots=True)
class LastSend:
    """The most recent attempt at a mail of the tenant."""

    status: Status
    at: datetime
    text: str | None


def page(tenant_id: int, wanted: Wanted = EVERYTHING, before: UUID | None = None) -> Page:
    """Return the newest events of the tenant in scope that are wanted, or those before one of them."""
    found = search.find(tenant_id, wanted, before, most=PAGE)
    return Page(entries(found.keys), found.rest, found.looked_back_to)


def entries(keys: Collection[UUID]) -> Sequence[Entry]:
    """Return these events of the tenant in scope, newest first."""
    if not keys:
        return []
    query = select(RecordedEvent).where(RecordedEvent.id.in_(keys)).order_by(RecordedEvent.id.desc())
    query = query.options(selectinload(RecordedEvent.deliveries).selectinload(Delivery.recipients))
    return [Entry.of(event) for event in db.session.scalars(query.execution_options(populate_existing=True))]


def entries_of(delivery_ids: Collection[UUID]) -> Sequence[Entry]:
    """Return the events of these mails of the tenant in scope, newest first."""
    return entries(db.session.scalars(select(Delivery.event_id).where(Delivery.id.in_(delivery_ids)).distinct()).all())


def last_send() -> LastSend | None:
    """Return the most recent attempt of the tenant in scope, or None."""
    query = select(Delivery).where(Delivery.attempted_at.is_not(None)).order_by(Delivery.attempted_at.desc()).limit(1)
    delivery = db.session.scalar(query.options(selectinload(Delivery.recipients)))
    if delivery is None or delivery.attempted_at is None:
        return None
    text = next((each.text for each in delivery.recipients if each.status != Status.SENT), None)
    return LastSend(Status(delivery.status), delivery.attempted_at, text)
