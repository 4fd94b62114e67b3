"""The end of quiet hours: one summary to each recipient, of the emails that were held meanwhile.

The held emails are the only record of what a summary has to list. They end in the transaction that writes the
summaries, so that neither a crash nor a second worker repeats or loses any. What a summary must not contain, such as a
password, is sent as it is. A recipient that was removed or paused meanwhile gets nothing.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ARRAY, ColumnElement, Uuid, and_, any_, func, literal, select, update

from portal.database.scope import enter_scope, every_tenant
from portal.deliveries.attempt import erase_secrets
from portal.deliveries.intake import record_own_event
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent, hold_has_ended
from portal.deliveries.release import make_due
from portal.deliveries.status import Status
from portal.events.recipient_emails import MAX_LISTED_EVENTS, QUIET_SUMMARY, QuietEvent, QuietSummary
from portal.events.samples import SUBJECT_PREFIX
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_templates.compiler import render_message
from portal.mail_templates.placeholders import MailContext
from portal.notifications import recipients
from portal.notifications.decision import Decision
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web.i18n import to_translate

MAX_EMAILS: Final = 10_000  # held ones of one transaction
LISTED: Final = to_translate("Listed in a summary after quiet hours.")
NOT_LISTED: Final = to_translate("Not in a summary: the recipient was removed or paused before the quiet hours ended.")
WITH_SECRETS: Final = [type_ for type_, event_type in EVENT_TYPES.items() if event_type.fields.secret_names()]

_has_ended = (Delivery.held_until.is_not(None), hold_has_ended())
_is_held = DeliveryRecipient.status == Status.HELD
_email = func.lower(DeliveryRecipient.email)  # as recipients are compared: it may have been entered again meanwhile


def tenants_with_ended_quiet_hours() -> Sequence[int]:
    """Return the tenants with emails that were held until now."""
    with every_tenant():
        return db.session.scalars(select(Delivery.tenant_id).where(*_has_ended).distinct()).all()


def write_summaries(tenant_id: int) -> int:
    """Record the summaries of the tenant's recipients whose quiet hours have ended, and return how many."""
    enter_scope(tenant_id)
    tenant = tenant_service.get(tenant_id)
    reachable = [row.email for row in recipients.lock_recipients(tenant) if not row.is_paused]
    ended = select(Delivery.id).where(*_has_ended).order_by(Delivery.held_until, Delivery.id).limit(MAX_EMAILS)
    ids = literal([*db.session.scalars(ended.with_for_update())], ARRAY(Uuid))  # one parameter, however many there are
    emails, their_recipients = Delivery.id == any_(ids), DeliveryRecipient.delivery_id == any_(ids)
    _end_recipients(NOT_LISTED, their_recipients, _email.not_in([email.lower() for email in reachable]))
    with_secrets = select(RecordedEvent.id).where(RecordedEvent.type.in_(WITH_SECRETS))
    with_recipient = select(DeliveryRecipient.delivery_id).where(their_recipients, _is_held)
    make_due(and_(emails, Delivery.event_id.in_(with_secrets), Delivery.id.in_(with_recipient)))
    summaries = sum(_record_summary(tenant, email, emails) for email in reachable)
    _end_recipients(LISTED, their_recipients)
    _end_emails(emails)
    db.session.commit()
    return summaries


def _record_summary(tenant: Tenant, email: str, is_held: ColumnElement[bool]) -> bool:
    """Record the summary of what was held for a recipient, and return whether there was anything."""
    events = (
        select(RecordedEvent)
        .join(Delivery, Delivery.event_id == RecordedEvent.id)
        .join(DeliveryRecipient, DeliveryRecipient.delivery_id == Delivery.id)
        .where(is_held, Delivery.held_until.is_not(None), _is_held, _email == email.lower())
    )
    listed = db.session.scalars(events.order_by(RecordedEvent.id).limit(MAX_LISTED_EVENTS)).all()
    if not listed:
        return False
    count = db.session.scalar(select(func.count()).select_from(events.subquery())) or 0
    context = MailContext.for_tenant(tenant)
    entries = tuple(QuietEvent(at=event.occurred_at, subject=_subject(event, context)) for event in listed)
    data = QuietSummary(count=count, events=entries, more=count - len(entries))
    return record_own_event(tenant, QUIET_SUMMARY, data, Decision([email]))


def _subject(event: RecordedEvent, context: MailContext) -> str:
    """Return the subject of the event's email by the default template: its data has no secrets."""
    event_type = ALL_EVENT_TYPES[event.type]
    data = event_type.fields.model_validate(event.data)
    subject = render_message(event_type, data, event.occurred_at, context).subject
    return f"{SUBJECT_PREFIX}{subject}" if event.is_sample else subject


def _end_recipients(text: str, *conditions: ColumnElement[bool]) -> None:
    ended = update(DeliveryRecipient).where(*conditions, _is_held).values(status=Status.DISCARDED, text=text)
    db.session.execute(ended.execution_options(synchronize_session=False))


def _end_emails(is_held: ColumnElement[bool]) -> None:
    """End the held emails that are still held, and erase the secrets of their events."""
    ended = (
        update(Delivery)
        .where(is_held, Delivery.held_until.is_not(None))
        .values(status=Status.DISCARDED, reason=None, held_until=None)
        .returning(Delivery.event_id)
        .execution_options(synchronize_session=False)
    )
    erase_secrets(db.session.scalars(ended).all())
