"""The results of an event, its emails and their recipients, as values: the PBX's response is made from them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ConfigDict

from portal.deliveries.models import AnyDelivery, AnyRecipient, RecordedEvent
from portal.deliveries.status import HoldReason, Status, combine
from portal.events.parsing import FieldWarning

DOCUMENTED = ConfigDict(use_attribute_docstrings=True)  # for the OpenAPI description


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """The mail server's reply about one recipient. There is no code if the mail server was not asked."""

    __pydantic_config__ = DOCUMENTED

    address: str
    status: Status
    """The status of the email for this recipient."""
    stage: str | None = None
    """The last stage of the SMTP session: token, name, connect, tls, … data."""
    code: int | None = None
    """The mail server's reply code (RFC 5321)."""
    enhanced_code: str | None = None
    """Its enhanced status code (RFC 3463)."""
    text: str | None = None
    """Its text, or the portal's if there was no reply."""


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one email."""

    __pydantic_config__ = DOCUMENTED

    message_id: str
    """The Message-ID, the same for each attempt."""
    status: Status
    """The status of the email."""
    reason: HoldReason | None
    """Why it is held."""
    next_attempt_at: datetime | None
    """When the next attempt is made."""
    recipients: tuple[RecipientResult, ...]
    """The result for each recipient."""
    held_until: datetime | None = None
    """When the quiet hours of its recipients end. A summary email lists the event then."""


@dataclass(frozen=True, slots=True)
class EventResult:
    """The result of an event."""

    __pydantic_config__ = DOCUMENTED

    id: str
    """The event's id: yours, or one that the portal made."""
    status: Status
    """The status of all of its emails."""
    reason: HoldReason | None
    """Why it is held or ignored."""
    duplicate: bool
    """Whether an earlier request had already recorded it."""
    deliveries: tuple[DeliveryResult, ...]
    """Its emails: none if it is ignored, two for a new user who also gets one."""
    warnings: tuple[FieldWarning, ...] = ()
    """What was repaired or left out. The event is recorded all the same."""


def event_result(event_id: str, deliveries: Iterable[DeliveryResult]) -> EventResult:
    """Return the result of an event from the results of its emails."""
    results = tuple(deliveries)
    status = combine(result.status for result in results)
    reason = next((result.reason for result in results if result.reason), None) if status is Status.HELD else None
    return EventResult(event_id, status, reason, duplicate=False, deliveries=results)


def recorded_event_result(event: RecordedEvent) -> EventResult:
    """Return the current result of an event that an earlier request recorded."""
    warnings = tuple(FieldWarning(**warning) for warning in event.warnings)
    if event.ignored_reason:
        reason = HoldReason(event.ignored_reason)
        return EventResult(event.external_id, Status.IGNORED, reason, duplicate=True, deliveries=(), warnings=warnings)
    result = event_result(event.external_id, map(delivery_result, event.deliveries))
    return replace(result, duplicate=True, warnings=warnings)


def delivery_result(delivery: AnyDelivery) -> DeliveryResult:
    """Return the current result of an email."""
    return DeliveryResult(
        message_id=delivery.message_id,
        status=_shown_status(delivery.status),
        reason=HoldReason(delivery.reason) if delivery.reason else None,
        next_attempt_at=delivery.lease_until or delivery.next_attempt_at,
        recipients=tuple(map(recipient_result, delivery.recipients)),
        held_until=delivery.held_until,
    )


def recipient_result(recipient: AnyRecipient) -> RecipientResult:
    """Return the current result for one recipient."""
    return RecipientResult(
        recipient.email,
        _shown_status(recipient.status),
        recipient.stage,
        recipient.code,
        recipient.enhanced_code,
        recipient.text,
    )


def _shown_status(status: str) -> Status:
    """Return the status to show: an email in progress is tried again should this attempt never end."""
    return Status.DEFERRED if status == Status.PENDING else Status(status)
