"""What became of an event, as values: the answer to the PBX is made of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ConfigDict

from portal.deliveries.mail import Mail, Recipient
from portal.deliveries.models import RecordedEvent
from portal.deliveries.states import Reason, Status, sum_up

DESCRIBED = ConfigDict(use_attribute_docstrings=True)  # for the OpenAPI description


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What the mail server said about one address; no code where it was not asked."""

    __pydantic_config__ = DESCRIBED

    address: str
    status: Status
    """What became of the mail for this address."""
    stage: str | None = None
    """How far the talk with the mail server had come: name, connect, tls, … data."""
    code: int | None = None
    """The mail server's reply code (RFC 5321)."""
    enhanced_code: str | None = None
    """Its enhanced status code (RFC 3463)."""
    text: str | None = None
    """Its words, or the portal's where it said nothing."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of one mail."""

    __pydantic_config__ = DESCRIBED

    message_id: str
    """The Message-ID, the same at each attempt."""
    status: Status
    """What became of the mail."""
    reason: Reason | None
    """Why it is held."""
    next_attempt_at: datetime | None
    """When it is tried again."""
    recipients: tuple[RecipientReport, ...]
    """What became of it for each address."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """What became of an event. `duplicate`: it was recorded by an earlier call."""

    __pydantic_config__ = DESCRIBED

    id: str
    """The event's id: yours, or one that the portal made."""
    status: Status
    """What became of all of its mails."""
    reason: Reason | None
    """Why it is held or ignored."""
    duplicate: bool
    """Whether it was recorded by an earlier call."""
    deliveries: tuple[DeliveryReport, ...]
    """Its mails: none where it is ignored, two for a new user who is mailed too."""


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
