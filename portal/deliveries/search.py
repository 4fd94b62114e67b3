"""Searching a tenant's events, newest first, without an index for each filter.

Every event would pay for another index. So a search reads the events by key, a limited number at a time, and says how
far back it searched.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, bindparam, func, literal, or_, select, tuple_

from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.status import Status
from portal.extensions import db
from portal.web.pagination import NEWEST, Page, Row, key_range
from portal.web.slots import Bound, Slots

MAX_SEARCHED: Final = 3000  # events
SEARCHES: Final = Slots(Bound(per_account=1, total=2), waiting=Bound(per_account=2, total=4), max_wait=2)

# These are tables and not models: with the equation that the scope adds to models, Postgres replaces the order by
# tenant and id with the order by id alone, and may read through the events of all tenants. Row level security applies.
EVENTS, DELIVERIES, RECIPIENTS = (model.__table__.c for model in (RecordedEvent, Delivery, DeliveryRecipient))
_key, _tenant_id = tuple_(EVENTS.tenant_id, EVENTS.id), bindparam("tenant_id", type_=EVENTS.tenant_id.type)
NEWEST_EVENTS: Final = (
    select(EVENTS.tenant_id, EVENTS.id, EVENTS.type, EVENTS.data, EVENTS.ignored_reason)
    .where(
        _key >= tuple_(_tenant_id, bindparam("first", type_=EVENTS.id.type)),
        _key < tuple_(_tenant_id, bindparam("end", type_=EVENTS.id.type)),
    )
    .order_by(EVENTS.tenant_id.desc(), EVENTS.id.desc())
    .limit(bindparam("most", type_=Integer))
)
SEARCHED: Final = NEWEST_EVENTS.subquery("searched")  # built once: that takes as long as most searches
_MESSAGE_ID = re.compile(r"<?([0-9a-f]{32})(@.*)?", re.ASCII)
_PHONE_NUMBER = re.compile(r"[\d\s+().-]{3,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which events to find. An empty field finds all. `since` and `until` are the times when they were recorded.

    `text` is part of what the PBX reported or of a recipient's address, or a whole event ID or Message-ID.
    """

    event_type: str = ""
    status: str = ""
    recipient: str = ""
    queue: str = ""
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""

    @property
    def reads_events(self) -> bool:
        """Whether events have to be read to find those that match: more than their times matters."""
        return replace(self, since=None, until=None) != NO_FILTER


NO_FILTER: Final = LogFilter()


@dataclass(frozen=True, slots=True)
class SearchPage(Page[Row, UUID]):
    """A page of a search. `searched_back_to` is when its oldest event was recorded, if the limit ended it early."""

    searched_back_to: datetime | None = None


def slot(account_id: int, log_filter: LogFilter) -> AbstractContextManager[None]:
    """Return a slot for an account's search. Reading the newest events needs none."""
    return SEARCHES.hold(account_id) if log_filter.reads_events else nullcontext()


def search_events(tenant_id: int, log_filter: LogFilter, before: UUID | None = None, *, limit: int) -> SearchPage[UUID]:
    """Return the keys of the tenant's newest events that match, or of those before one of them."""
    first, end = key_range(log_filter.since, log_filter.until, before)
    exact = _event_with_id(tenant_id, log_filter.text)
    if exact is not None:
        first, end, log_filter = max(first, exact), min(end, UUID(int=exact.int + 1)), replace(log_filter, text="")
    searched, connection = _searched(tenant_id, first, end), db.session.connection()
    query = select(SEARCHED.c.id).where(*_conditions(log_filter))
    query = query.order_by(SEARCHED.c.tenant_id.desc(), SEARCHED.c.id.desc()).limit(limit + 1)
    page = Page.of(connection.scalars(query, searched).all(), limit, lambda key: key)
    if page.next_key is not None:
        return SearchPage(page.rows, page.next_key)
    last_query = NEWEST_EVENTS.with_only_columns(EVENTS.id).limit(1).offset(MAX_SEARCHED - 1)
    last = connection.scalar(last_query, searched)
    # A key begins with the milliseconds when it was created (RFC 9562, section 5.7).
    searched_back_to = datetime.fromtimestamp((last.int >> 80) / 1000, UTC) if last else None
    return SearchPage(page.rows, last, searched_back_to)


def count_newer_events(tenant_id: int, log_filter: LogFilter, newest: UUID, *, limit: int) -> int:
    """Return how many events after this one match, up to the limit."""
    first, end = key_range(log_filter.since, log_filter.until)
    first = max(first, UUID(int=min(newest.int + 1, NEWEST.int)))
    newer = select(SEARCHED.c.id).where(*_conditions(log_filter)).limit(limit).subquery()
    searched = _searched(tenant_id, first, end)
    return db.session.connection().scalar(select(func.count()).select_from(newer), searched) or 0


def _searched(tenant_id: int, first: UUID, end: UUID) -> dict[str, Any]:
    """Return the values of `SEARCHED`: it begins with the first key, and ends before the other."""
    return {"tenant_id": tenant_id, "first": first, "end": end, "most": MAX_SEARCHED}


def _conditions(log_filter: LogFilter) -> Iterator[ColumnElement[bool]]:
    event, queue = SEARCHED.c, log_filter.queue
    if log_filter.event_type:
        yield event.type == log_filter.event_type
    if queue:
        yield or_(event.data["queue_number"].astext == queue, _contains(event.data["queue_name"].astext, queue))
    if log_filter.status == Status.IGNORED:
        yield event.ignored_reason.is_not(None)
    elif log_filter.status or log_filter.recipient:
        yield _has_delivery(log_filter)
    if log_filter.text:
        yield or_(_has_value(log_filter.text), _has_delivery(LogFilter(recipient=log_filter.text)))


def _has_delivery(log_filter: LogFilter) -> ColumnElement[bool]:
    """Return the condition that an email has the status and the recipient. If both are given, either may have it."""
    deliveries = select(literal(1)).where(DELIVERIES.event_id == SEARCHED.c.id)
    if not log_filter.recipient:
        return deliveries.where(DELIVERIES.status == log_filter.status).exists()
    is_recipient = (RECIPIENTS.delivery_id == DELIVERIES.id, _contains(RECIPIENTS.email, log_filter.recipient))
    if log_filter.status:
        has_status = or_(DELIVERIES.status == log_filter.status, RECIPIENTS.status == log_filter.status)
        deliveries = deliveries.where(has_status)
    return deliveries.where(*is_recipient).exists()


def _has_value(text: str) -> ColumnElement[bool]:
    field = func.jsonb_each_text(SEARCHED.c.data).table_valued("key", "value")
    condition = _contains(field.c.value, text)
    if _PHONE_NUMBER.fullmatch(text):  # people write one with spaces, and with 0 instead of the country code
        digits = re.sub(r"\D", "", text).lstrip("0")
        condition = func.strpos(func.translate(field.c.value, " +-().", ""), digits or text) > 0
    return select(literal(1)).select_from(field).where(condition).exists()


def _contains(column: ColumnElement[str], part: str) -> ColumnElement[bool]:
    return func.strpos(func.lower(column), func.lower(part)) > 0


def _event_with_id(tenant_id: int, text: str) -> UUID | None:
    """Return the key of the event with this ID, or of the event of the email with this Message-ID."""
    if not text:
        return None
    delivery_id = id_in_message_id(text)
    if delivery_id is not None:
        is_delivery = (DELIVERIES.tenant_id == tenant_id, DELIVERIES.id == delivery_id)
        key: UUID | None = db.session.scalar(select(DELIVERIES.event_id).where(*is_delivery))
        if key is not None:
            return key
    is_event = (EVENTS.tenant_id == tenant_id, EVENTS.external_id == text)
    return db.session.scalar(select(EVENTS.id).where(*is_event))


def id_in_message_id(text: str) -> UUID | None:
    """Return the id of the email with this Message-ID, with or without its host and angle brackets, or None."""
    found = _MESSAGE_ID.fullmatch(text.lower())
    return UUID(found[1]) if found else None
