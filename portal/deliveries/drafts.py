"""Planning the mails of an event: to whom each goes, and whether it can go now, must wait or is held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid4, uuid7

from portal import config
from portal.deliveries.letters import Letter, Route, write
from portal.deliveries.reports import DeliveryReport, RecipientReport
from portal.deliveries.schedule import LEASE, next_attempt
from portal.deliveries.states import Reason, Status
from portal.mail_servers.models import MailServer
from portal.mail_servers.pause import paused_until
from portal.mail_servers.selection import in_force
from portal.notifications import recipients
from portal.notifications.events import Event
from portal.notifications.switches import Audience, Switch
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail that is about to be recorded, with a letter where it is to be sent at once."""

    row: Mapping[str, Any]
    report: DeliveryReport
    letter: Letter | None


def draft(tenant: Tenant, event: Event, row_id: UUID, switch: Switch) -> list[Draft]:
    """Return the mails of an event of the tenant in scope. Tokens of softphones are added to the session."""
    server = in_force(tenant.id)
    return [
        _draft_for(tenant, event, row_id, server, audience, addresses)
        for audience, addresses in _audiences(event, switch).items()
    ]


def _audiences(event: Event, switch: Switch) -> Mapping[Audience, Sequence[str]]:
    """Return who gets a mail of their own. The user's shows nobody else's address, and nobody stands in for them."""
    user = event.data.addressee
    audiences: dict[Audience, Sequence[str]] = {}
    if switch.audience is not Audience.USER:
        audiences[Audience.RECIPIENTS] = recipients.addresses()
    if switch.audience is Audience.USER or (switch.audience is Audience.BOTH and user):
        audiences[Audience.USER] = [user] if user else []
    return audiences


def _draft_for(
    tenant: Tenant, event: Event, row_id: UUID, server: MailServer | None, audience: Audience, addresses: Sequence[str]
) -> Draft:
    now = datetime.now(UTC)
    status, reason = _first_status(server, addresses)
    row: dict[str, Any] = {
        "id": uuid7(),
        "tenant_id": tenant.id,
        "event_id": row_id,
        "audience": audience,
        "message_id": f"<{uuid4().hex}@{config.current().host}>",
        "status": status,
        "reason": reason,
        "mail_server": None,
        "attempts": 0,
        "lease_until": None,
        "next_attempt_at": _after_pause(server, now) if server and status is Status.DEFERRED else None,
        "expires_at": now + event.kind.expiry,
    }
    letter = None
    if server and status is Status.PENDING:
        letter = _letter(tenant, event, Route.through(server, tenant), addresses, row)
        row |= {"mail_server": letter.route.label, "attempts": 1, "lease_until": now + LEASE}
    why = server.pause_text if server and not letter else None
    reports = tuple(RecipientReport(address, status, text=why) for address in addresses)
    return Draft(row, DeliveryReport(row["message_id"], status, reason, row["next_attempt_at"], reports), letter)


def _letter(tenant: Tenant, event: Event, route: Route, addresses: Sequence[str], row: Mapping[str, Any]) -> Letter:
    return Letter(
        tenant_id=tenant.id,
        event_id=row["event_id"],
        delivery_id=row["id"],
        message_id=row["message_id"],
        recipients=tuple(addresses),
        attempts=1,
        holds_secrets=bool(event.data.secret_names()),
        route=route,
        message=write(tenant, event, route, addresses, row["message_id"], row["expires_at"]),
    )


def _first_status(server: MailServer | None, addresses: Sequence[str]) -> tuple[Status, Reason | None]:
    if not addresses:
        return Status.HELD, Reason.NO_RECIPIENTS
    if server is None:
        return Status.HELD, Reason.NO_MAIL_SERVER
    if server.rejected_at is not None:
        return Status.HELD, Reason.MAIL_SERVER_REJECTED
    return (Status.DEFERRED if paused_until(server) else Status.PENDING), None


def _after_pause(server: MailServer, now: datetime) -> datetime:
    return max(paused_until(server) or now, next_attempt(1, now))
