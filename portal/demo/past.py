"""The demo's past: thirty days of events and mails, written as rows, as if the portal had been in use for a while.

The same each time, but for the date: busy weekdays, quiet weekends, and now and then a mail that fails.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import insert

from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.states import Reason, Status
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.kinds import KINDS
from portal.tenants.models import Tenant

DAY: Final = timedelta(days=1)
DAYS: Final = 30
FIRST_HOUR, LAST_HOUR = 8, 18
SATURDAY: Final = 5
QUEUES: Final = (("8000", "Support"), ("8001", "Sales"), ("8002", "Billing"))
KIND_WEIGHTS: Final = {
    "queue.call_lost": 10,
    "queue.sla_breached": 6,
    "queue.callback_completed": 4,
    "queue.callback_failed": 2,
    "user.created": 1,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a mail, by the reply to its last recipient; where it is partly sent, the others were accepted."""

    status: Status
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None
    reason: Reason | None = None

    def for_recipient(self, *, last: bool) -> "Ending":
        """Return what became of one recipient."""
        if self.status is not Status.PARTIAL:
            return self
        return Ending(Status.FAILED, self.stage, self.code, self.enhanced_code, self.text) if last else SENT


SENT: Final = Ending(Status.SENT, "data", 250, "2.0.0", "Ok: queued")
UNKNOWN_USER: Final = Ending(Status.PARTIAL, "rcpt", 550, "5.1.1", "The email account that you tried to reach is gone")
TOO_LARGE: Final = Ending(Status.FAILED, "data", 552, "5.3.4", "Message size exceeds fixed limit")
GREYLISTED: Final = Ending(Status.EXPIRED, "rcpt", 450, "4.2.0", "Greylisted, try again later")
TOO_MANY: Final = Ending(Status.HELD, reason=Reason.THROTTLED)
WRONG_PASSWORD: Final = Ending(
    Status.HELD, "auth", 535, "5.7.8", "Authentication credentials invalid", Reason.MAIL_SERVER_REJECTED
)
USUAL: Final = {SENT: 190, UNKNOWN_USER: 4, TOO_LARGE: 2, GREYLISTED: 1}


class Past:
    """Writes the past of the tenant in scope."""

    def __init__(self, tenant: Tenant, server: str) -> None:
        self.tenant, self.server, self.addresses = tenant, server, recipients.addresses()
        self.chance = random.Random(tenant.domain)  # noqa: S311 (no secret)
        self.rows: dict[type, list[dict[str, Any]]] = {RecordedEvent: [], Delivery: [], DeliveryRecipient: []}

    def usual(self, busy: int, until: datetime) -> None:
        """Add the days of a tenant in which nothing is amiss, with about `busy` events on a weekday."""
        today = datetime.now(ZoneInfo(self.tenant.time_zone)).date()
        for ago in range(DAYS, -1, -1):
            for at in self._moments(today - ago * DAY, busy):
                if at < until:
                    (ending,) = self.chance.choices(list(USUAL), list(USUAL.values()))
                    self.add(at, SENT if until - at < DAY else ending)

    def add(self, at: datetime, ending: Ending, kind: str | None = None) -> None:
        """Add an event of that time, and its mail, which ended so."""
        kind = kind or self.chance.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        event_id, mail_id = self._key(at), self._key(at)
        self.rows[RecordedEvent].append(
            {
                "id": event_id,
                "tenant_id": self.tenant.id,
                "event_id": str(event_id),
                "type": kind,
                "occurred_at": at,
                "received_at": at,
                "fingerprint": self.chance.randbytes(32),
                "data": self._data(kind, at),
            }
        )
        self.rows[Delivery].append(
            {
                "id": mail_id,
                "tenant_id": self.tenant.id,
                "event_id": event_id,
                "audience": "recipients",
                "message_id": f"<{mail_id.hex}@pbx.example>",
                "status": ending.status,
                "reason": ending.reason,
                "mail_server": self.server if ending.stage else None,
                "attempts": 1 if ending.stage else 0,
                "expires_at": at + KINDS[kind].expiry,
                "created_at": at,
                "attempted_at": at + timedelta(seconds=1) if ending.stage else None,
            }
        )
        for position, address in enumerate(self.addresses):
            told = ending.for_recipient(last=position == len(self.addresses) - 1)
            self.rows[DeliveryRecipient].append(
                {
                    "delivery_id": mail_id,
                    "tenant_id": self.tenant.id,
                    "address": address,
                    "position": position,
                    "status": told.status,
                    "stage": told.stage,
                    "code": told.code,
                    "enhanced_code": told.enhanced_code,
                    "text": told.text,
                }
            )

    def write(self) -> None:
        """Write the rows."""
        for model, rows in self.rows.items():
            db.session.execute(insert(model), rows)
        db.session.commit()

    def _moments(self, day: date, busy: int) -> Iterator[datetime]:
        """Return the times of a day's events: few of them on a weekend, and none at night."""
        usual = busy // 7 if day.weekday() >= SATURDAY else busy
        for _ in range(self.chance.randint(usual * 2 // 3, usual * 4 // 3)):
            clock = time(self.chance.randrange(FIRST_HOUR, LAST_HOUR), self.chance.randrange(60))
            yield datetime.combine(day, clock, ZoneInfo(self.tenant.time_zone)).astimezone(UTC)

    def _key(self, at: datetime) -> UUID:
        """Return a key of that time (RFC 9562, section 5.7)."""
        ms, chance = int(at.timestamp() * 1000), self.chance.getrandbits
        return UUID(int=ms << 80 | 7 << 76 | chance(12) << 64 | 2 << 62 | chance(62))

    def _data(self, kind: str, at: datetime) -> dict[str, Any]:
        fields = KINDS[kind].sample_data(at).public()
        if "queue_number" not in fields:
            return fields | {"extension_number": str(self.chance.randrange(100, 200))}
        number, name = self.chance.choice(QUEUES)
        caller = f"+442079460{self.chance.randrange(100, 999)}"
        return fields | {"queue_number": number, "queue_name": name, "caller_number": caller}
