"""The delivery log of a tenant: its events and what happened to their emails, newest first."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

from sqlalchemy import select

from portal.database import clock
from portal.database.detached import detached
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries.actions import REPEATABLE
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import NO_FILTER, LogFilter, SearchPage, search_events
from portal.deliveries.statistics import RECORDING_TIME
from portal.deliveries.status import Status, combine
from portal.extensions import db
from portal.web import pagination

SOON: Final = timedelta(seconds=30)
MAX_NEW_EVENTS: Final = 50  # that are counted for a page
_state: Final = attrgetter(
    "delivery.id", "delivery.status", "delivery.reason", "delivery.attempts", "is_due_soon", "can_discard"
)
EVENT_COLUMNS: Final = ("id", "type", "received_at", "data", "ignored_reason", "is_sample", "warnings")
DELIVERY_COLUMNS: Final = (
    *("id", "audience", "status", "reason", "attempts", "created_at"),
    *("lease_until", "next_attempt_at", "held_until", "expires_at"),
)
# What the log shows, in one statement: SQLAlchemy would take longer for the rows than Postgres.
READ_ENTRIES: Final = f"""
    SELECT {", ".join(f"event.{name}" for name in EVENT_COLUMNS[:-1])}, nullif(event.warnings, '[]'),
        {", ".join(f"delivery.{name}" for name in DELIVERY_COLUMNS)}, (
            SELECT json_agg(recipient ORDER BY recipient.position) FROM delivery_recipients AS recipient
            WHERE recipient.delivery_id = delivery.id
        )
    FROM events AS event LEFT JOIN deliveries AS delivery ON delivery.event_id = event.id
    WHERE event.id = ANY(%(event_ids)s)
    ORDER BY event.id DESC, delivery.id
"""  # noqa: S608 (names of columns)


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
    def is_unfinished(self) -> bool:
        """Whether the email is in progress, queued or held, so that its status will change."""
        is_held_or_queued = self.delivery.reason is not None or self.delivery.next_attempt_at is not None
        return is_held_or_queued or self.is_in_progress

    @property
    def can_discard(self) -> bool:
        """Whether the email is held or queued."""
        return self.is_unfinished and not self.is_in_progress

    @property
    def is_due_soon(self) -> bool:
        """Whether a worker will send the email shortly."""
        at = self.delivery.next_attempt_at
        return self.can_discard and at is not None and at <= clock.now() + SOON

    @property
    def actions(self) -> Sequence[str]:
        """What a person can do with the email: nothing if it is in progress or was discarded."""
        if self.can_discard:
            return ("discard",) if self.is_due_soon else ("send_now", "discard")
        return ("send_again",) if self.delivery.status in REPEATABLE and not self.is_in_progress else ()

    @property
    def has_next_attempt(self) -> bool:
        """Whether the email is queued and does not expire first."""
        at = self.delivery.next_attempt_at
        return at is not None and at < self.delivery.expires_at

    @property
    def recipients_by_reply(self) -> Collection[Sequence[DeliveryRecipient]]:
        """The recipients, together with those that got the same reply. What a server says about success is not one."""
        if len(self.delivery.recipients) == 1:
            return [self.delivery.recipients]
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


def log_page(
    tenant_id: int, log_filter: LogFilter = NO_FILTER, before: UUID | None = None, *, size: int | None = None
) -> SearchPage[LogEntry]:
    """Return a page of the tenant in scope: the newest events that match, or those before one of them."""
    found = search_events(tenant_id, log_filter, before, limit=size or pagination.PAGE_SIZE)
    return SearchPage(load_entries(found.rows), found.next_key, found.searched_back_to)


def load_entries(event_ids: Collection[UUID]) -> Sequence[LogEntry]:
    """Return the entries of these events of the tenant in scope, newest first, to be read only."""
    if not event_ids:
        return []
    rows = db.session.connection().exec_driver_sql(READ_ENTRIES, {"event_ids": [*event_ids]}).all()
    return [_entry(list(of_event)) for _, of_event in groupby(rows, itemgetter(0))]


def _entry(rows: Sequence[Sequence[Any]]) -> LogEntry:
    """Return an event with its emails from its rows: one for each email, or a single one without."""
    event = detached(RecordedEvent, dict(zip(EVENT_COLUMNS, rows[0], strict=False)))
    of_deliveries = [row[len(EVENT_COLUMNS) :] for row in rows]
    vars(event)["deliveries"] = [_delivery(row) for row in of_deliveries if row[0] is not None]
    return LogEntry(event)


def _delivery(row: Sequence[Any]) -> Delivery:
    delivery = detached(Delivery, dict(zip(DELIVERY_COLUMNS, row, strict=False)))
    vars(delivery)["recipients"] = [detached(DeliveryRecipient, values) for values in row[-1] or ()]
    return delivery


def entries_of_deliveries(delivery_ids: Collection[UUID]) -> Sequence[LogEntry]:
    """Return the entries of the events of these emails of the tenant in scope, newest first."""
    event_ids = select(Delivery.event_id).where(Delivery.id.in_(delivery_ids)).distinct()
    return load_entries(db.session.scalars(event_ids).all())


# What has changed since a page of the log was rendered. Pages ask every few seconds, so no change must cost little.


def newest_key(entries: Sequence[LogEntry]) -> UUID:
    """Return the key after which events are new to a page with these entries."""
    lower_bound = lowest_uuid7(clock.now() - RECORDING_TIME)
    return max(entries[0].event.id, lower_bound) if entries else lower_bound


def deliveries_version(deliveries: Collection[LoggedDelivery]) -> str:
    """Return a short text that changes when the emails of an event do."""
    return f"{crc32(repr([_state(logged) for logged in deliveries]).encode()):08x}"


def changed_events(shown: Collection[tuple[UUID, str]]) -> Sequence[UUID]:
    """Return which of these events of the tenant in scope have a different version than the one that is shown."""
    if not shown:
        return ()
    query = select(Delivery).where(Delivery.event_id.in_([event_id for event_id, _ in shown]))
    deliveries = db.session.scalars(query.order_by(Delivery.event_id, Delivery.id))
    versions = {
        event_id: deliveries_version(logged_deliveries(of_event))
        for event_id, of_event in groupby(deliveries, lambda delivery: delivery.event_id)
    }
    return [event_id for event_id, version in shown if versions.get(event_id, version) != version]
