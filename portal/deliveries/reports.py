"""What became of an event, as values: the answer to the PBX is made of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from portal.deliveries.mail import Mail, Recipient
from portal.deliveries.models import RecordedEvent
from portal.deliveries.states import Reason, Status, sum_up


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What the mail server said about one address; no code where it was not asked."""

    address: str
    status: Status
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of one mail."""

    message_id: str
    status: Status
    reason: Reason | None
    next_attempt_at: datetime | None
    recipients: tuple[RecipientReport, ...]


@dataclass(frozen=True, slots=True)
class EventReport:
    """What became of an event. `duplicate`: it was recorded by an earlier call."""

    id: str
    status: Status
    reason: Reason | None
    duplicate: bool
    deliveries: tuple[DeliveryReport, ...]


def ignored(event_id: str, reason: Reason) -> EventReport:
    """Return the report of an event that sends no mail."""
    return EventReport(event_id, Status.IGNORED, reason, duplicate=False, deliveries=())


def of_deliveries(event_id: str, deliveries: Iterable[DeliveryReport]) -> EventReport:
    """Return the report of an event from those of its mails."""
    reports = tuple(deliveries)
    status = sum_up(each.status for each in reports)
    reason = next((each.reason for each in reports if each.reason), None) if status is Status.HELD else None
    return EventReport(event_id, status, reason, duplicate=False, deliveries=reports)


def of_recorded(event: RecordedEvent) -> EventReport:
    """Return what is true now of an event that was recorded before."""
    if event.ignored_reason:
        report = ignored(event.event_id, Reason(event.ignored_reason))
    else:
        report = of_deliveries(event.event_id, map(of_delivery, event.deliveries))
    return replace(report, duplicate=True)


def of_delivery(row: Mail) -> DeliveryReport:
    """Return what is true now of a recorded mail."""
    # A mail that is being sent at this moment will be tried again, should this attempt never end.
    status = Status.DEFERRED if row.status == Status.PENDING else Status(row.status)
    return DeliveryReport(
        message_id=row.message_id,
        status=status,
        reason=Reason(row.reason) if row.reason else None,
        next_attempt_at=row.lease_until or row.next_attempt_at,
        recipients=tuple(map(of_recipient, row.recipients)),
    )


def of_recipient(row: Recipient) -> RecipientReport:
    """Return what is known of one recipient."""
    status = Status.DEFERRED if row.status == Status.PENDING else Status(row.status)
    return RecipientReport(row.address, status, row.stage, row.code, row.enhanced_code, row.text)
