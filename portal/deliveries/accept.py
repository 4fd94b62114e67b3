"""Recording an event: one transaction for the event, its mails and their recipients, before the first byte of SMTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from uuid_utils.compat import uuid4, uuid7

from portal import crypto, statements
from portal.deliveries import reports
from portal.deliveries.attempt import attempt
from portal.deliveries.circumstances import Circumstances
from portal.deliveries.mail import Mail, NewMail
from portal.deliveries.models import RecordedEvent
from portal.deliveries.prepare import prepare, why_unwanted
from portal.deliveries.record import Recorded, record
from portal.deliveries.reports import DeliveryReport, EventReport
from portal.deliveries.states import Reason
from portal.extensions import db
from portal.notifications.events import Event
from portal.notifications.switches import Audience


@dataclass(frozen=True, slots=True)
class Conflict:
    """The tenant has an event with the same id and other content."""

    event_id: str


def accept(circumstances: Circumstances, event: Event) -> EventReport | Conflict:
    """Record the event of the tenant in scope, send its mails, and return what became of them.

    An event that was recorded before sends nothing; the report tells what is true of it now.
    """
    event_id = event.id or str(uuid4())
    event, row_id, tenant = replace(event, id=event_id), uuid7(), circumstances.tenant
    unwanted = why_unwanted(circumstances)
    audiences = {} if unwanted else _audiences(event, circumstances)
    ignored = unwanted or (None if audiences else Reason.NO_RECIPIENT_WANTS_IT)
    mails = [NewMail.about(row_id, event.expiry, *audience) for audience in audiences.items()]
    letters = [prepare(circumstances, event, mail) for mail in mails]
    has_tokens = bool(event.data.secrets())  # which wait in the session
    run = statements.run_within_session if has_tokens else statements.run
    recorded = record(tenant, event, row_id, mails, ignored=ignored, run=run)
    if recorded is Recorded.BEFORE:
        db.session.rollback()
        return _repeated(event, event_id)
    if has_tokens:
        db.session.commit()
    if ignored:
        return reports.ignored(event_id, ignored)
    if recorded is Recorded.THROTTLED:
        return reports.of_deliveries(event_id, map(_throttled, mails))
    became = [
        attempt(letter) if letter else reports.of_delivery(mail) for mail, letter in zip(mails, letters, strict=True)
    ]
    return reports.of_deliveries(event_id, became)


def _throttled(mail: Mail) -> DeliveryReport:
    mail.hold(Reason.THROTTLED)
    return reports.of_delivery(mail)


def _repeated(event: Event, event_id: str) -> EventReport | Conflict:
    row = db.session.scalars(select(RecordedEvent).where(RecordedEvent.event_id == event_id)).one()
    if not crypto.keyring().same(event.canonical.encode(), row.fingerprint):
        return Conflict(event_id)
    return reports.of_recorded(row)


def _audiences(event: Event, circumstances: Circumstances) -> Mapping[Audience, Sequence[str]]:
    """Return who gets a mail of their own. The user's shows nobody else's address, and nobody stands in for them.

    Where no recipient wants it now there is no mail to them; where there is none at all it is held for those to come.
    """
    user, wanted = event.data.addressee, circumstances.switch.audience
    audiences: dict[Audience, Sequence[str]] = {}
    if wanted is not Audience.USER and (circumstances.addresses or not circumstances.has_recipients):
        audiences[Audience.RECIPIENTS] = circumstances.addresses
    if wanted is Audience.USER or (wanted is Audience.BOTH and user):
        audiences[Audience.USER] = [user] if user else []
    return audiences
