"""What became new since a page of the log was made: asked every few seconds, so it costs little where nothing did."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID
from zlib import crc32

from sqlalchemy import select

from portal.database import first_key
from portal.deliveries import log, search
from portal.deliveries.log import Entry, Mail
from portal.deliveries.models import Delivery
from portal.deliveries.search import Wanted
from portal.extensions import db

MOST = 50  # new events that are counted
AT_WORK = timedelta(seconds=10)  # what was recorded in these may have been under way when the page was made


def newest(entries: Sequence[Entry]) -> UUID:
    """Return the key behind which events are new to a page with these entries."""
    lately = first_key(datetime.now(UTC) - AT_WORK)
    return max(entries[0].event.id, lately) if entries else lately


def version(mails: Collection[Mail]) -> str:
    """Return what becomes another one when an event's mails do."""
    states = [
        (
            each.delivery.id,
            each.delivery.status,
            each.delivery.reason,
            each.delivery.attempts,
            each.is_due,
            each.is_open,
        )
        for each in mails
    ]
    return f"{crc32(repr(states).encode()):08x}"


def changed(seen: Collection[tuple[UUID, str]]) -> Sequence[UUID]:
    """Return which of these events of the tenant in scope have another version than the one that is shown."""
    if not seen:
        return ()
    query = select(Delivery).where(Delivery.event_id.in_([event for event, _ in seen]))
    mails = db.session.scalars(query.order_by(Delivery.event_id, Delivery.id))
    now = {event: version(log.mails(of_event)) for event, of_event in groupby(mails, lambda each: each.event_id)}
    return [event for event, shown in seen if now.get(event, shown) != shown]


def count_newer(tenant_id: int, wanted: Wanted, newest: UUID) -> int:
    """Return how many wanted events of the tenant in scope came since, at most `MOST`."""
    return search.count_newer(tenant_id, wanted, newest, most=MOST)
