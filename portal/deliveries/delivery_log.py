"""The delivery log of a tenant: its events and what happened to their emails, newest first."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, Uuid, any_, literal, select

from portal.database import clock
from portal.database.detached import read_detached
from portal.deliveries.actions import REPEATABLE
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import NO_FILTER, LogFilter, SearchPage, search_events
from portal.deliveries.status import Status, combine
from portal.extensions import db
from portal.web import pagination

SOON: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """An email in the log, and what a person can do with it. A copy is an email that a person had sent again."""

    delivery: Delivery
    is_copy: bool

    @property
    def is_in_progress(self) -> bool:
        """Whether an attempt is being made."""
        return self.delivery.lease_until is not None

    @property
    def can_discard(self) -> bool:
        """Whether the email is held or queued."""
        is_held_or_queued = self.delivery.reason is not None or self.delivery.next_attempt_at is not None
        return is_held_or_queued and not self.is_in_progress

    @property
    def is_due_soon(self) -> bool:
        """Whether a worker will send the email shortly."""
        at = self.delivery.next_attempt_at
        return self.can_discard and at is not None and at <= clock.now() + SOON

    @property
    def can_send_now(self) -> bool:
        """Whether the email is held, or queued for later."""
        return self.can_discard and not self.is_due_soon

    @property
    def can_send_again(self) -> bool:
        """Whether the email is finished, and not discarded."""
        return self.delivery.status in REPEATABLE and not self.is_unfinished

    @property
    def actions(self) -> Sequence[str]:
        """What a person can do with the email."""
        possible = {"send_now": self.can_send_now, "discard": self.can_discard, "send_again": self.can_send_again}
        return [action for action, is_possible in possible.items() if is_possible]

    @property
    def has_next_attempt(self) -> bool:
        """Whether the email is queued and does not expire first."""
        at = self.delivery.next_attempt_at
        return at is not None and at < self.delivery.expires_at

    @property
    def is_unfinished(self) -> bool:
        """Whether the email is in progress, queued or held, so that its status will change."""
        return self.can_discard or self.is_in_progress

    @property
    def recipients_by_reply(self) -> Collection[Sequence[DeliveryRecipient]]:
        """The recipients, together with those that got the same reply. What a server says about success is not one."""
        groups: dict[object, list[DeliveryRecipient]] = {}
        for row in self.delivery.recipients:
            reply = Status.SENT if row.status == Status.SENT else (row.status, row.code, row.text)
            groups.setdefault(reply, []).append(row)
        return groups.values()


@dataclass(frozen=True)
class LogEntry:
    """An event in the log."""

    event: RecordedEvent

    @property
    def status(self) -> Status:
        """The combined status of its emails."""
        if self.event.ignored_reason:
            return Status.IGNORED
        return combine(Status(delivery.status) for delivery in self.event.deliveries)

    @cached_property
    def deliveries(self) -> Sequence[LoggedDelivery]:
        """The event's emails, oldest first."""
        return logged_deliveries(self.event.deliveries)

    @property
    def is_unfinished(self) -> bool:
        """Whether the status of one of its emails will change."""
        return any(logged.is_unfinished for logged in self.deliveries)


def logged_deliveries(deliveries: Iterable[Delivery]) -> Sequence[LoggedDelivery]:
    """Return the emails of one event, which are given oldest first, as they are in the log."""
    deliveries = [*deliveries]
    return [LoggedDelivery(row, is_copy=row.created_at > deliveries[0].created_at) for row in deliveries]


def by_day(entries: Iterable[LogEntry], zone: ZoneInfo) -> Sequence[tuple[date, Sequence[LogEntry]]]:
    """Return the entries in groups, by the day in the zone on which the event was recorded."""
    return [
        (day, list(of_day))
        for day, of_day in groupby(entries, lambda entry: entry.event.received_at.astimezone(zone).date())
    ]


def log_page(tenant_id: int, log_filter: LogFilter = NO_FILTER, before: UUID | None = None) -> SearchPage[LogEntry]:
    """Return a page of the tenant in scope: the newest events that match, or those before one of them."""
    found = search_events(tenant_id, log_filter, before, limit=pagination.PAGE_SIZE)
    return SearchPage(load_entries(found.rows), found.next_key, found.searched_back_to)


def load_entries(event_ids: Collection[UUID]) -> Sequence[LogEntry]:
    """Return the entries of these events of the tenant in scope, newest first, to be read only."""
    if not event_ids:
        return []
    ids = literal(list(event_ids), ARRAY(Uuid))
    events = read_detached(RecordedEvent, RecordedEvent.id == any_(ids), order_by=[RecordedEvent.id.desc()])
    deliveries = read_detached(Delivery, Delivery.event_id == any_(ids), order_by=[Delivery.id])
    of_deliveries = DeliveryRecipient.delivery_id == any_(literal([row.id for row in deliveries], ARRAY(Uuid)))
    recipients = read_detached(DeliveryRecipient, of_deliveries, order_by=[DeliveryRecipient.position])
    by_event, by_delivery = defaultdict(list), defaultdict(list)
    for recipient in recipients:
        by_delivery[recipient.delivery_id].append(recipient)
    for delivery in deliveries:
        vars(delivery)["recipients"] = by_delivery[delivery.id]
        by_event[delivery.event_id].append(delivery)
    for event in events:
        vars(event)["deliveries"] = by_event[event.id]
    return [LogEntry(event) for event in events]


def entries_of_deliveries(delivery_ids: Collection[UUID]) -> Sequence[LogEntry]:
    """Return the entries of the events of these emails of the tenant in scope, newest first."""
    event_ids = select(Delivery.event_id).where(Delivery.id.in_(delivery_ids)).distinct()
    return load_entries(db.session.scalars(event_ids).all())
