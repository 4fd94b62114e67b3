"""Recording an event: one transaction for the event, its mails and their recipients, before the first byte of SMTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from uuid_utils.compat import uuid4

from portal import crypto
from portal.deliveries import reports
from portal.deliveries.attempt import attempt
from portal.deliveries.letters import Letter
from portal.deliveries.models import Delivery, RecordedEvent
from portal.deliveries.prepare import prepare, why_unwanted
from portal.deliveries.record import new_mail, record
from portal.deliveries.reports import EventReport
from portal.deliveries.states import Reason
from portal.deliveries.storms import is_throttled
from portal.extensions import db
from portal.mail_servers.selection import in_force
from portal.notifications import recipients, switches
from portal.notifications.events import Event
from portal.notifications.switches import Audience, Switch
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Conflict:
    """The tenant has an event with the same id and other content."""

    event_id: str


def accept(tenant: Tenant, event: Event) -> EventReport | Conflict:
    """Record the event of the tenant in scope, send its mails, and return what became of them.

    An event that was recorded before sends nothing; the report tells what is true of it now.
    """
    event_id = event.id or str(uuid4())
    event = replace(event, id=event_id)
    switch = switches.switch(event.kind.type)
    ignored = why_unwanted(tenant, switch)
    row_id = record(tenant, event, ignored)
    if row_id is None:
        db.session.rollback()
        return _repeated(event, event_id)
    if ignored:
        db.session.commit()
        return reports.ignored(event_id, ignored)
    mails = [new_mail(tenant, event.kind, row_id, *audience) for audience in _audiences(event, switch).items()]
    letters = _prepare(tenant, event, mails, switch)
    db.session.add_all(mails)
    db.session.commit()
    became = [
        attempt(letter) if letter else reports.of_delivery(mail) for mail, letter in zip(mails, letters, strict=True)
    ]
    return reports.of_deliveries(event_id, became)


def _prepare(tenant: Tenant, event: Event, mails: Sequence[Delivery], switch: Switch) -> list[Letter | None]:
    if is_throttled(tenant, event):
        for mail in mails:
            mail.hold(Reason.THROTTLED)
        return [None] * len(mails)
    server = in_force(tenant.id)
    return [prepare(tenant, event, mail, switch, server) for mail in mails]


def _repeated(event: Event, event_id: str) -> EventReport | Conflict:
    row = db.session.scalars(select(RecordedEvent).where(RecordedEvent.event_id == event_id)).one()
    if not crypto.keyring().same(event.canonical.encode(), row.fingerprint):
        return Conflict(event_id)
    return reports.of_recorded(row)


def _audiences(event: Event, switch: Switch) -> Mapping[Audience, Sequence[str]]:
    """Return who gets a mail of their own. The user's shows nobody else's address, and nobody stands in for them."""
    user = event.data.addressee
    audiences: dict[Audience, Sequence[str]] = {}
    if switch.audience is not Audience.USER:
        audiences[Audience.RECIPIENTS] = recipients.addresses()
    if switch.audience is Audience.USER or (switch.audience is Audience.BOTH and user):
        audiences[Audience.USER] = [user] if user else []
    return audiences
