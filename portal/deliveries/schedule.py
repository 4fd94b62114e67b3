"""When an email is sent: now under a lease, later, or not before a problem is fixed."""

import random
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from portal.crypto import UnreadableSecret
from portal.database import clock
from portal.deliveries.models import PendingDelivery
from portal.deliveries.plan import Plan
from portal.deliveries.status import HoldReason, Status
from portal.mail_servers.service import paused_until
from portal.notifications.settings import Audience
from portal.web.i18n import to_translate

RETRY_DELAYS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440))
JITTER: Final = 0.2
MAX_DELAY_AFTER_PAUSE: Final = timedelta(seconds=30)
DELAY_WHEN_BUSY: Final = timedelta(seconds=5)
# Longer than the two emails of an event take: 10 s each up to the final dot, and 60 s each for the reply to it.
LEASE_DURATION: Final = timedelta(minutes=3)
PATIENT_LEASE_DURATION: Final = timedelta(minutes=21)  # longer than an attempt with `PATIENT_TIMEOUTS` takes

UNREADABLE_PASSWORD: Final = to_translate("The saved password of the mail server cannot be read. Enter it again.")


def take_lease(plan: Plan, delivery: PendingDelivery) -> None:
    """Lease the email for an attempt that begins now, or hold or queue it if it cannot be sent now.

    The caller writes the change.
    """
    server, recipients = plan.mail_server, delivery.unfinished
    reason = ignore_reason(plan) or _hold_reason(plan, delivery)
    pause_end, text = (paused_until(server), server.pause_reason) if server else (None, None)
    if server and not reason and not pause_end:
        with suppress(UnreadableSecret):
            _ = plan.smtp_settings  # the attempt needs them
            delivery.status, delivery.lease_until = Status.PENDING, clock.now() + LEASE_DURATION
            delivery.next_attempt_at, delivery.mail_server_label = None, server.label
            delivery.attempts += 1
            return
        reason, text = HoldReason.MAIL_SERVER_REJECTED, UNREADABLE_PASSWORD
    if reason:
        delivery.hold(reason)
    elif pause_end:  # soon after the pause, but not all emails at once
        delivery.queue(pause_end + MAX_DELAY_AFTER_PAUSE * random.random())  # noqa: S311 (no secret)
    for recipient in recipients:
        recipient.text = recipient.text or text


def ignore_reason(plan: Plan) -> HoldReason | None:
    """Return why the tenant gets no emails about this type of event at present, or None."""
    if plan.tenant.is_suspended:
        return HoldReason.TENANT_SUSPENDED
    return None if plan.setting.enabled else HoldReason.SWITCHED_OFF


def _hold_reason(plan: Plan, delivery: PendingDelivery) -> HoldReason | None:
    if not delivery.unfinished:
        is_unwanted = delivery.audience == Audience.RECIPIENTS and plan.has_recipients
        return HoldReason.NO_RECIPIENT_WANTS_IT if is_unwanted else HoldReason.NO_RECIPIENTS
    if plan.mail_server is None:
        return HoldReason.NO_MAIL_SERVER
    return HoldReason.MAIL_SERVER_REJECTED if plan.mail_server.rejected_at else None


def next_attempt_time(attempts: int, now: datetime, *, was_busy: bool = False) -> datetime:
    """Return when to try again after that many attempts, varied by 20 % so that not all emails are tried at once.

    `was_busy` says that the email found no free connection slot of its mail server.
    """
    delay = DELAY_WHEN_BUSY if was_busy else RETRY_DELAYS[min(attempts, len(RETRY_DELAYS)) - 1]
    return now + delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
