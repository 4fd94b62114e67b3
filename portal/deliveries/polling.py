"""What has changed since a page of the log was rendered. Pages ask every few seconds, so no change must cost little."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID
from zlib import crc32

from sqlalchemy import select

from portal.database import clock
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries.delivery_log import LogEntry, LoggedDelivery, logged_deliveries
from portal.deliveries.models import Delivery
from portal.extensions import db

MAX_NEW_EVENTS: Final = 50  # that are counted
_state: Final = attrgetter(
    "delivery.id", "delivery.status", "delivery.reason", "delivery.attempts", "is_due_soon", "can_discard"
)
RECORDING_TIME: Final = timedelta(seconds=10)  # a page may miss an event whose key is that much older


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
