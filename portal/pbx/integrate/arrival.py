"""What has come from a tenant's PBX: nothing yet, its first event, or calls that were refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from portal.deliveries.models import RecordedEvent
from portal.extensions import db
from portal.notifications.kinds import KINDS
from portal.pbx import keys, rejections
from portal.pbx.models import KeyState, PbxKey, RejectedCall
from portal.tenants.models import Tenant

MOST_REJECTED = 3


@dataclass(frozen=True, slots=True)
class Arrival:
    """What has come. `key` is the one that is waited for, or the one that was used last.

    `event` is the last one, and `is_first` tells whether there was none before it.
    """

    is_waiting: bool
    key: PbxKey | None
    event: RecordedEvent | None
    is_first: bool
    rejected: Sequence[RejectedCall]

    @property
    def is_connected(self) -> bool:
        """Whether the PBX has been heard."""
        return self.event is not None and not self.is_waiting

    @property
    def label(self) -> str:
        """What the last event was."""
        return KINDS[self.event.type].label if self.event and self.event.type in KINDS else ""

    @property
    def mark(self) -> str:
        """A text that is another one where there is something new to tell."""
        refused = sum(call.count for call in self.rejected)
        return f"{self.event and self.event.id}.{self.key and self.key.id}.{self.is_waiting}.{refused}"


def look(tenant: Tenant) -> Arrival:
    """Return what has come for the tenant in scope. A newest key that was never used is waited for."""
    live = [key for key in keys.of_owner(tenant) if key.is_live]
    used = [key for key in live if key.last_used_at]
    events = _last_events()
    is_waiting = bool(live and live[0].state is KeyState.UNUSED) or not events
    last_used = max(used, key=lambda key: key.last_used_at or key.created_at, default=None)
    return Arrival(
        is_waiting=is_waiting,
        key=live[0] if is_waiting and live else last_used,
        event=events[0] if events else None,
        is_first=len(events) == 1,
        rejected=rejections.recent(tenant)[:MOST_REJECTED] if is_waiting else (),
    )


def _last_events() -> Sequence[RecordedEvent]:
    """Return the last event that a PBX reported, and the one before: no samples, and nothing of the portal's own."""
    of_a_pbx = RecordedEvent.sample.is_(False) & RecordedEvent.type.in_(KINDS)
    return db.session.scalars(select(RecordedEvent).where(of_a_pbx).order_by(RecordedEvent.id.desc()).limit(2)).all()
