"""Looking for events of a tenant, newest first, without an index of what people look for.

An index more would be paid for by each event. So a search walks the events by key, a bounded number at a time, and
says how far back it looked.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Subquery, func, literal, or_, select, tuple_

from portal.database import first_key
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.states import Status
from portal.extensions import db

BOUND: Final = 3000  # events that a search looks at
NEWEST: Final = UUID(int=2**128 - 1)
OLDEST: Final = UUID(int=0)

# Tables, and not their models: the scope's filter is an equation, with which Postgres takes the order of `events` by
# tenant and id for that by id alone, and may then walk through everybody's. Row level security stays.
EVENTS, MAILS, RECIPIENTS = (model.__table__.c for model in (RecordedEvent, Delivery, DeliveryRecipient))
_MESSAGE_ID = re.compile(r"<?([0-9a-f]{32})(@.*)?", re.ASCII)
_NUMBER = re.compile(r"[\d\s+().-]{3,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; all where nothing is said. `since` and `until` are when they were recorded.

    `text` is part of what the PBX reported or of a recipient's address, or the whole of an event's id or Message-ID.
    """

    event: str = ""
    outcome: str = ""
    recipient: str = ""
    queue: str = ""
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""


EVERYTHING: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Found:
    """Keys of events, newest first. `rest` is the key that the search goes on behind, None where it is at its end.

    `looked_back_to` is when the last event was recorded that was looked at, where that ended the search too early.
    """

    keys: Sequence[UUID]
    rest: UUID | None = None
    looked_back_to: datetime | None = None


def find(tenant_id: int, wanted: Wanted, before: UUID | None = None, *, most: int) -> Found:
    """Return the newest events of the tenant in scope that are wanted, or those before one of them."""
    first, last = _span(wanted, before)
    named = _named(tenant_id, wanted.text)
    if named is not None:
        first, last, wanted = max(first, named), min(last, UUID(int=named.int + 1)), replace(wanted, text="")
    walk = _walk(tenant_id, first, last).subquery("looked")
    query = select(walk.c.id).where(*_conditions(wanted, walk)).order_by(walk.c.tenant_id.desc(), walk.c.id.desc())
    keys = db.session.scalars(query.limit(most + 1)).all()
    if len(keys) > most:
        return Found(keys[:most], keys[most - 1])
    end = db.session.scalar(_walk(tenant_id, first, last).with_only_columns(EVENTS.id).limit(1).offset(BOUND - 1))
    return Found(keys, end, _moment(end)) if end else Found(keys)


def count_newer(tenant_id: int, wanted: Wanted, than: UUID, *, most: int) -> int:
    """Return how many wanted events were recorded since that one, at most so many."""
    first, last = _span(wanted, None)
    walk = _walk(tenant_id, max(first, UUID(int=min(than.int + 1, NEWEST.int))), last).subquery("looked")
    newer = select(walk.c.id).where(*_conditions(wanted, walk)).limit(most).subquery()
    return db.session.scalar(select(func.count()).select_from(newer)) or 0


def _span(wanted: Wanted, before: UUID | None) -> tuple[UUID, UUID]:
    """Return the first key that is wanted, and the one that none may reach."""
    until = first_key(wanted.until) if wanted.until else NEWEST
    return first_key(wanted.since) if wanted.since else OLDEST, min(before or NEWEST, until)


def _walk(tenant_id: int, first: UUID, last: UUID) -> Select[Any]:
    key = tuple_(EVENTS.tenant_id, EVENTS.id)
    columns = (EVENTS.tenant_id, EVENTS.id, EVENTS.type, EVENTS.data, EVENTS.ignored_reason)
    span = (key >= tuple_(literal(tenant_id), literal(first)), key < tuple_(literal(tenant_id), literal(last)))
    return select(*columns).where(*span).order_by(EVENTS.tenant_id.desc(), EVENTS.id.desc()).limit(BOUND)


def _conditions(wanted: Wanted, event: Subquery) -> Iterator[ColumnElement[bool]]:
    data = event.c.data
    if wanted.event:
        yield event.c.type == wanted.event
    if wanted.queue:
        yield or_(data["queue_number"].astext == wanted.queue, _contains(data["queue_name"].astext, wanted.queue))
    if wanted.outcome == Status.IGNORED:
        yield event.c.ignored_reason.is_not(None)
    elif wanted.outcome or wanted.recipient:
        yield _mail(wanted, event)
    if wanted.text:
        yield or_(_reported(wanted.text, event), _has_recipient(wanted.text, event))


def _mail(wanted: Wanted, event: Subquery) -> ColumnElement[bool]:
    """Return whether a mail has the outcome, and the recipient. With both, the recipient's own outcome counts too."""
    mails = select(literal(1)).where(MAILS.event_id == event.c.id)
    if not wanted.recipient:
        return mails.where(MAILS.status == wanted.outcome).exists()
    mails = mails.where(RECIPIENTS.delivery_id == MAILS.id, _contains(RECIPIENTS.address, wanted.recipient))
    if wanted.outcome:
        mails = mails.where(or_(MAILS.status == wanted.outcome, RECIPIENTS.status == wanted.outcome))
    return mails.exists()


def _reported(text: str, event: Subquery) -> ColumnElement[bool]:
    field = func.jsonb_each_text(event.c.data).table_valued("key", "value")
    condition = _contains(field.c.value, text)
    if _NUMBER.fullmatch(text):  # people write a number with blanks, and with 0 in place of the country
        digits = re.sub(r"\D", "", text).lstrip("0")
        condition = func.strpos(func.translate(field.c.value, " +-().", ""), digits or text) > 0
    return select(literal(1)).select_from(field).where(condition).exists()


def _has_recipient(text: str, event: Subquery) -> ColumnElement[bool]:
    mails = select(literal(1)).where(MAILS.event_id == event.c.id, RECIPIENTS.delivery_id == MAILS.id)
    return mails.where(_contains(RECIPIENTS.address, text)).exists()


def _contains(column: ColumnElement[str], part: str) -> ColumnElement[bool]:
    return func.strpos(func.lower(column), func.lower(part)) > 0


def _named(tenant_id: int, text: str) -> UUID | None:
    """Return the event with this id, or with the mail that has this Message-ID."""
    if not text:
        return None
    mail = _MESSAGE_ID.fullmatch(text.lower())
    if mail:
        query = select(MAILS.event_id).where(MAILS.tenant_id == tenant_id, MAILS.id == UUID(mail[1]))
        event: UUID | None = db.session.scalar(query)
        if event is not None:
            return event
    query = select(EVENTS.id).where(EVENTS.tenant_id == tenant_id, EVENTS.event_id == text)
    named: UUID | None = db.session.scalar(query)
    return named


def _moment(key: UUID) -> datetime:
    """Return when a key was made (RFC 9562, section 5.7)."""
    return datetime.fromtimestamp((key.int >> 80) / 1000, UTC)
