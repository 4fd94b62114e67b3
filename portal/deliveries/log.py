"""Reading what was delivered: the log of a tenant, newest first, in pages by key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
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
    def is_moving(self) -> bool:
        """Whether there will be something new to tell of it in a moment."""
        return self.is_due or self.delivery.lease_until is not None

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
        seen: set[str] = set()
        mails = []
        for delivery in self.event.deliveries:
            mails.append(Mail(delivery, again=delivery.audience in seen))
            seen.add(delivery.audience)
        return mails

    @property
    def is_moving(self) -> bool:
        """Whether there will be something new to tell of a mail in a moment."""
        return any(mail.is_moving for mail in self.mails)


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
