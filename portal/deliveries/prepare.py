"""How a mail goes on, looked at anew before each attempt: it is sent, it waits, or it is held."""

from datetime import UTC, datetime

from portal.deliveries import letters, reports
from portal.deliveries.circumstances import Circumstances
from portal.deliveries.letters import Letter, Route
from portal.deliveries.mail import Mail
from portal.deliveries.schedule import LEASE, after_pause
from portal.deliveries.states import Reason, Status
from portal.mail_servers.pause import paused_until
from portal.notifications.events import Event
from portal.notifications.switches import Audience


def prepare(circumstances: Circumstances, event: Event, delivery: Mail) -> Letter | None:
    """Return the letter to send now, with its lease noted on the row; None where the row notes why it has to wait.

    The caller commits. A welcome mail's token is added to the session.
    """
    tenant, server, to_try = circumstances.tenant, circumstances.server, delivery.to_try
    reason = why_unwanted(circumstances) or _why_held(circumstances, delivery)
    until = paused_until(server) if server else None
    if reason:
        delivery.hold(reason)
    elif until:
        delivery.wait_until(after_pause(until))
    if server is None or reason or until:
        for each in to_try:
            each.text = each.text or (server.pause_text if server else None)
        return None
    route = Route.through(server, tenant)
    delivery.status, delivery.lease_until, delivery.next_attempt_at = Status.PENDING, datetime.now(UTC) + LEASE, None
    delivery.mail_server = route.label
    delivery.attempts += 1
    return Letter(
        tenant_id=tenant.id,
        event_id=delivery.event_id,
        delivery_id=delivery.id,
        message_id=delivery.message_id,
        recipients=tuple(each.address for each in to_try),
        settled=tuple(reports.of_recipient(each) for each in delivery.recipients if each not in to_try),
        reason=Reason(delivery.reason) if delivery.reason else None,
        attempts=delivery.attempts,
        expires_at=delivery.expires_at,
        holds_secrets=bool(event.data.secret_names()),
        route=route,
        message=letters.write(tenant, event, delivery, route.sender, circumstances.switch.template),
    )


def why_unwanted(circumstances: Circumstances) -> Reason | None:
    """Return why the tenant wants no mail about an event kind, or None."""
    if circumstances.tenant.is_suspended:
        return Reason.TENANT_SUSPENDED
    return None if circumstances.switch.enabled else Reason.SWITCHED_OFF


def _why_held(circumstances: Circumstances, delivery: Mail) -> Reason | None:
    server = circumstances.server
    if not delivery.to_try:
        is_unwanted = delivery.audience == Audience.RECIPIENTS and circumstances.has_recipients
        return Reason.NO_RECIPIENT_WANTS_IT if is_unwanted else Reason.NO_RECIPIENTS
    if server is None:
        return Reason.NO_MAIL_SERVER
    return Reason.MAIL_SERVER_REJECTED if server.rejected_at else None
