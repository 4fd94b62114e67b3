"""What a person can do with an email: discard it, send it now, or send it again."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from flask_babel import gettext
from sqlalchemy import and_, or_, select, text
from sqlalchemy.orm import joinedload, selectinload

from portal.accounts.models import Account
from portal.audit.log import record
from portal.database import clock
from portal.database.scope import current_scope
from portal.deliveries.intake import accept_event, record_own_event
from portal.deliveries.lifecycle import end_deliveries
from portal.deliveries.models import IS_UNFINISHED, Delivery, DeliveryRecipient, PendingDelivery
from portal.deliveries.plan import load_plan
from portal.deliveries.release import make_due
from portal.deliveries.report import EventResult
from portal.deliveries.status import HoldReason, Status
from portal.errors import Refusal
from portal.events.event_type import EventType
from portal.events.parsing import SAMPLE_EXPIRY
from portal.events.recipient_emails import SETTINGS_LINK, LinkRequest
from portal.events.samples import sample_event
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.extensions import db
from portal.mail_servers.smtp import pool
from portal.notifications import recipients
from portal.notifications.decision import Decision
from portal.tenants.models import Tenant

REPEATABLE: Final = (Status.SENT, Status.PARTIAL, Status.FAILED, Status.EXPIRED)

_is_queued = Delivery.next_attempt_at.is_not(None)


def send_now(delivery_ids: Collection[UUID]) -> int:
    """Make these emails of the tenant in scope due if they are held or queued, and return how many were."""
    made_due = make_due(and_(Delivery.id.in_(delivery_ids), or_(Delivery.reason.is_not(None), _is_queued)))
    _record_action("sent_now", [message_id for _, message_id in made_due])
    db.session.commit()
    return len(made_due)


def discard(delivery_ids: Collection[UUID]) -> int:
    """Discard these emails of the tenant in scope if they are held or queued, and return how many were."""
    query = select(Delivery).where(Delivery.id.in_(delivery_ids), text(IS_UNFINISHED), Delivery.lease_until.is_(None))
    query = query.with_for_update(skip_locked=True).options(selectinload(Delivery.recipients))
    discarded = db.session.scalars(query).all()
    end_deliveries(discarded, Status.DISCARDED)
    _record_action("discarded", [delivery.message_id for delivery in discarded])
    db.session.commit()
    return len(discarded)


def send_again(delivery_id: UUID) -> Delivery | Refusal:
    """Queue a copy of this email of the tenant in scope, with its own Message-ID, and return it. It is due at once.

    A welcome email can be sent again only while the secrets of its event exist.
    """
    query = select(Delivery).where(Delivery.id == delivery_id).options(joinedload(Delivery.event))
    original = db.session.scalar(query.with_for_update(of=Delivery))
    if original is None or original.status not in REPEATABLE:
        return Refusal("delivery", gettext("Only an email that was sent, failed or expired can be sent again."))
    event_type, event = ALL_EVENT_TYPES[original.event.type], original.event
    # The lock keeps the secrets: another email of the event that ends meanwhile would erase them.
    db.session.refresh(event, with_for_update={"key_share": True})
    copies = select(Delivery.id).where(Delivery.event_id == event.id, Delivery.audience == original.audience)
    copies = copies.where(Delivery.reason.is_distinct_from(HoldReason.QUIET_HOURS))
    if db.session.scalar(copies.where(text(IS_UNFINISHED)).limit(1)):  # the button was pressed twice
        return Refusal("delivery", gettext("This email is already being sent again."))
    if event_type.fields.secret_names() and event.secrets_encrypted is None:
        erased = gettext("Its password was erased when it was delivered. Have the PBX report the user again.")
        return Refusal("delivery", erased)
    emails = [recipient.email for recipient in original.recipients]
    expiry = SAMPLE_EXPIRY if event.is_sample else event_type.expiry
    pending = PendingDelivery.create(event.id, expiry, original.audience, emails)
    pending.queue(clock.now())
    owner = {"tenant_id": original.tenant_id}
    rows = [
        DeliveryRecipient(**owner, email=recipient.email, position=position, status=recipient.status)
        for position, recipient in enumerate(pending.recipients)
    ]
    copy = Delivery(**vars(pending) | owner | {"recipients": rows})
    db.session.add(copy)
    _record_action("sent_again", [original.message_id])
    db.session.commit()
    return copy


def send_sample(tenant: Tenant, event_type: EventType, account: Account) -> EventResult | Refusal:
    """Record a sample event for the tenant in scope, send its emails, and return the result.

    It is emailed like a real event, except that the email for a new user goes to the account.
    """
    # A sample keeps a thread of the process busy until the mail server has answered.
    with pool.current().slots.acquire(("sample", tenant.id), exclusive=True) as acquired:
        if not acquired:
            message = gettext("Another sample is being sent. Wait until it has arrived, then try again.")
            return Refusal("sample", message)
        record("event.sample_sent", event_type.type, tenant_id=tenant.id)
        db.session.commit()
        result = accept_event(load_plan(tenant.id, event_type.type), sample_event(tenant, event_type, account.email))
        assert isinstance(result, EventResult)  # its id is new, so there is no conflict
        return result


def send_settings_link(tenant: Tenant, email: str) -> None:
    """Record an email to a recipient of the tenant in scope with the link that is below each email to it.

    To another email address nothing is sent, which takes as long.
    """
    known = {recipient.email.lower(): recipient.email for recipient in recipients.list_recipients()}
    record_own_event(tenant, SETTINGS_LINK, LinkRequest(), Decision([known.get(email.lower(), email)]))
    if email.lower() in known:
        db.session.commit()
    else:
        db.session.rollback()


def _record_action(action: str, message_ids: Sequence[str]) -> None:
    """Record in the audit log what a person did with emails of the tenant in scope."""
    if message_ids:
        subject = f"{len(message_ids)} email{'s' * (len(message_ids) > 1)}"
        changes = {"message_ids": [None, message_ids]}
        record(f"mail.{action}", subject, tenant_id=int(current_scope()), changes=changes)
