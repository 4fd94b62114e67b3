"""Whether a tenant's PBX has reported an event yet, and which of its requests were rejected meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from portal.deliveries.models import RecordedEvent
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.pbx import api_keys, rejections
from portal.pbx.models import ApiKey, KeyState, RejectedRequest
from portal.tenants.models import Tenant

MAX_REJECTED_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """What a tenant's PBX has reported."""

    is_waiting: bool  # the first event of the PBX, or of its newest key, has not arrived yet
    key: ApiKey | None  # whose first event has not arrived yet, otherwise the one that was used last
    event: RecordedEvent | None  # the last one
    is_first: bool  # it is the only one
    rejected_requests: Sequence[RejectedRequest]  # the last ones, while waiting

    @property
    def event_label(self) -> str:
        """The label of the last event's type."""
        return EVENT_TYPES[self.event.type].label if self.event and self.event.type in EVENT_TYPES else ""

    @property
    def version(self) -> str:
        """A text that changes whenever there is something new to show."""
        rejected = sum(request.count for request in self.rejected_requests)
        return f"{self.event and self.event.id}.{self.key and self.key.id}.{self.is_waiting}.{rejected}"


def connection_status(tenant: Tenant) -> ConnectionStatus:
    """Return the status of the tenant in scope."""
    valid = [key for key in api_keys.list_keys(tenant) if key.is_valid]
    used = [key for key in valid if key.last_used_at]
    # What a PBX reported: no samples, and none of the portal's own events.
    from_pbx = RecordedEvent.is_sample.is_(False) & RecordedEvent.type.in_(EVENT_TYPES)
    last_two = select(RecordedEvent).where(from_pbx).order_by(RecordedEvent.id.desc()).limit(2)
    events = db.session.scalars(last_two).all()
    is_waiting = bool(valid and valid[0].state is KeyState.UNUSED) or not events
    last_used = max(used, key=lambda key: key.last_used_at or key.created_at, default=None)
    return ConnectionStatus(
        is_waiting=is_waiting,
        key=valid[0] if is_waiting and valid else last_used,
        event=events[0] if events else None,
        is_first=len(events) == 1,
        rejected_requests=rejections.list_recent(tenant)[:MAX_REJECTED_SHOWN] if is_waiting else (),
    )
