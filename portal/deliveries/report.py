"""The results of an event, its emails and their recipients, as values: the PBX's response is made from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ConfigDict

from portal.deliveries.models import Delivery, PendingDelivery, stored_result
from portal.deliveries.status import HoldReason, Status, combine
from portal.events.parsing import FieldWarning

DOCUMENTED = ConfigDict(use_attribute_docstrings=True)  # for the OpenAPI description
# An email in progress is tried again should this attempt never end.
SHOWN_STATUS: Final[Mapping[str, Status]] = {**{it: it for it in Status}, Status.PENDING: Status.DEFERRED}


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


def event_result(
    event_id: str,
    deliveries: Iterable[Delivery | PendingDelivery],
    warnings: tuple[FieldWarning, ...],
    ignored: HoldReason | None = None,
    *,
    duplicate: bool = False,
) -> EventResult:
    """Return the current result of an event from its emails. If it is `ignored`, it has none."""
    results = tuple(map(_delivery_result, deliveries))
    status = Status.IGNORED if ignored else combine(result.status for result in results)
    reason = next((result.reason for result in results if result.reason), None) if status is Status.HELD else ignored
    return EventResult(event_id, status, reason, duplicate, results, warnings)


def _delivery_result(delivery: Delivery | PendingDelivery) -> DeliveryResult:
    return DeliveryResult(
        message_id=delivery.message_id,
        status=SHOWN_STATUS[delivery.status],
        reason=HoldReason(delivery.reason) if delivery.reason else None,
        next_attempt_at=delivery.lease_until or delivery.next_attempt_at,
        recipients=tuple(
            RecipientResult(**stored_result(recipient) | {"status": SHOWN_STATUS[recipient.status]})
            for recipient in delivery.recipients
        ),
        held_until=delivery.held_until,
    )
