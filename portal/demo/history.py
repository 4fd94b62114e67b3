"""The demo's history: thirty days of events and emails, written as rows.

It is the same each time except for the dates: busy weekdays, quiet weekends, and a failed email now and then.
"""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import insert

from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.status import HoldReason, Status
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.notifications import recipients
from portal.tenants.models import Tenant

DAY: Final = timedelta(days=1)
DAYS: Final = 30
FIRST_HOUR, LAST_HOUR = 8, 18
SATURDAY: Final = 5
QUEUES: Final = (("8000", "Support"), ("8001", "Sales"), ("8002", "Billing"))
EVENT_TYPE_WEIGHTS: Final = {
    "queue.call_lost": 10,
    "queue.sla_breached": 6,
    "queue.callback_completed": 4,
    "queue.callback_failed": 2,
    "user.created": 1,
}


class DeliveryEnding(NamedTuple):
    """How a delivery ends: the reply about its last recipient; if it is partly sent, the others were accepted."""

    status: Status
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None
    reason: HoldReason | None = None

    def for_recipient(self, *, last: bool) -> "DeliveryEnding":
        """Return the ending for one recipient."""
        if self.status is not Status.PARTIAL:
            return self
        return self._replace(status=Status.FAILED) if last else SENT


SENT: Final = DeliveryEnding(Status.SENT, "data", 250, "2.0.0", "Ok: queued")
UNKNOWN_USER: Final = DeliveryEnding(
    Status.PARTIAL, "rcpt", 550, "5.1.1", "The email account that you tried to reach is gone"
)
TOO_LARGE: Final = DeliveryEnding(Status.FAILED, "data", 552, "5.3.4", "Message size exceeds fixed limit")
GREYLISTED: Final = DeliveryEnding(Status.EXPIRED, "rcpt", 450, "4.2.0", "Greylisted, try again later")
TOO_MANY: Final = DeliveryEnding(Status.HELD, reason=HoldReason.THROTTLED)
WRONG_PASSWORD: Final = DeliveryEnding(
    Status.HELD, "auth", 535, "5.7.8", "Authentication credentials invalid", HoldReason.MAIL_SERVER_REJECTED
)
USUAL: Final = {SENT: 190, UNKNOWN_USER: 4, TOO_LARGE: 2, GREYLISTED: 1}


class DemoHistory:
    """Writes the history of the tenant in scope."""

    def __init__(self, tenant: Tenant, server: str) -> None:
        self.tenant, self.server, self.addresses = tenant, server, recipients.list_emails()
        self.random = random.Random(tenant.domain)  # noqa: S311 (no secret)
        self.rows: dict[type, list[dict[str, Any]]] = {RecordedEvent: [], Delivery: [], DeliveryRecipient: []}

    def add_usual_days(self, busy: int, until: datetime) -> None:
        """Add days without special problems, with about `busy` events on a weekday."""
        today = datetime.now(ZoneInfo(self.tenant.time_zone)).date()
        for days_ago in range(DAYS, -1, -1):
            for at in self._times(today - days_ago * DAY, busy):
                if at < until:
                    (ending,) = self.random.choices(list(USUAL), list(USUAL.values()))
                    self.add(at, SENT if until - at < DAY else ending)

    def add(self, at: datetime, ending: DeliveryEnding, event_type: str | None = None) -> None:
        """Add an event at that time, and its delivery with this ending."""
        event_type = event_type or self.random.choices(list(EVENT_TYPE_WEIGHTS), list(EVENT_TYPE_WEIGHTS.values()))[0]
        event_id, delivery_id = self._key(at), self._key(at)
        self.rows[RecordedEvent].append(
            {
                "id": event_id,
                "tenant_id": self.tenant.id,
                "external_id": str(event_id),
                "type": event_type,
                "occurred_at": at,
                "received_at": at,
                "fingerprint": self.random.randbytes(32),
                "data": self._data(event_type, at),
            }
        )
        self.rows[Delivery].append(
            {
                "id": delivery_id,
                "tenant_id": self.tenant.id,
                "event_id": event_id,
                "audience": "recipients",
                "message_id": f"<{delivery_id.hex}@pbx.example>",
                "status": ending.status,
                "reason": ending.reason,
                "mail_server_label": self.server if ending.stage else None,
                "attempts": 1 if ending.stage else 0,
                "expires_at": at + EVENT_TYPES[event_type].expiry,
                "created_at": at,
                "last_attempt_at": at + timedelta(seconds=1) if ending.stage else None,
            }
        )
        for position, address in enumerate(self.addresses):
            result = ending.for_recipient(last=position == len(self.addresses) - 1)._asdict()
            del result["reason"]
            row = {"delivery_id": delivery_id, "tenant_id": self.tenant.id, "email": address, "position": position}
            self.rows[DeliveryRecipient].append(row | result)

    def write(self) -> None:
        """Write the rows."""
        for model, rows in self.rows.items():
            db.session.execute(insert(model), rows)
        db.session.commit()

    def _times(self, day: date, busy: int) -> Iterator[datetime]:
        """Return the times of a day's events: few on weekends, none at night."""
        count = busy // 7 if day.weekday() >= SATURDAY else busy
        for _ in range(self.random.randint(count * 2 // 3, count * 4 // 3)):
            clock = time(self.random.randrange(FIRST_HOUR, LAST_HOUR), self.random.randrange(60))
            yield datetime.combine(day, clock, ZoneInfo(self.tenant.time_zone)).astimezone(UTC)

    def _key(self, at: datetime) -> UUID:
        """Return a UUIDv7 of that time (RFC 9562, section 5.7)."""
        ms, bits = int(at.timestamp() * 1000), self.random.getrandbits
        return UUID(int=ms << 80 | 7 << 76 | bits(12) << 64 | 2 << 62 | bits(62))

    def _data(self, event_type: str, at: datetime) -> dict[str, Any]:
        fields = EVENT_TYPES[event_type].sample_data(at).public_fields()
        if "queue_number" not in fields:
            return fields | {"extension_number": str(self.random.randrange(100, 200))}
        number, name = self.random.choice(QUEUES)
        caller = f"+442079460{self.random.randrange(100, 999)}"
        return fields | {"queue_number": number, "queue_name": name, "caller_number": caller}
