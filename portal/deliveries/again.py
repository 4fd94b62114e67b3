"""What a person decides about a mail: to give it up, or to send it once more."""

from collections.abc import Collection
from datetime import UTC, datetime
from uuid import UUID

from flask_babel import gettext
from sqlalchemy import select, text
from sqlalchemy.orm import joinedload

from portal.deliveries.endings import end_all
from portal.deliveries.mail import NewMail
from portal.deliveries.mending import note_decision
from portal.deliveries.models import STILL_OPEN, Delivery
from portal.deliveries.states import Status
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications.digest import EVERY_KIND
from portal.notifications.events import SAMPLE_EXPIRY


def discard(delivery_ids: Collection[UUID]) -> int:
    """Give these mails of the tenant in scope up, and return how many were still open. One that is being sent stays."""
    query = select(Delivery).where(Delivery.id.in_(delivery_ids), text(STILL_OPEN), Delivery.lease_until.is_(None))
    open_ones = db.session.scalars(query.with_for_update(skip_locked=True)).all()
    end_all(open_ones, Status.DISCARDED)
    note_decision("discarded", [(each.tenant_id, each.message_id) for each in open_ones])
    db.session.commit()
    return len(open_ones)


def send_again(delivery_id: UUID) -> Delivery | Refusal:
    """Return a new mail like this one of the tenant in scope, with a Message-ID of its own, which goes out at once.

    A welcome mail can be sent again only while the secrets of its event exist.
    """
    query = select(Delivery).where(Delivery.id == delivery_id).options(joinedload(Delivery.event))
    first = db.session.scalar(query.with_for_update(of=Delivery))
    if first is None or first.status not in {Status.SENT, Status.PARTIAL, Status.FAILED, Status.EXPIRED}:
        return Refusal("delivery", gettext("Only a mail that was sent, refused or given up can be sent again."))
    kind, event = EVERY_KIND[first.event.type], first.event
    db.session.refresh(event, with_for_update={"key_share": True})  # who ends its other mail erases what this one needs
    same = select(Delivery.id).where(Delivery.event_id == first.event_id, Delivery.audience == first.audience)
    if db.session.scalar(same.where(text(STILL_OPEN)).limit(1)):  # a button that was pressed twice
        return Refusal("delivery", gettext("It is already to be sent again."))
    if kind.fields.secret_names() and event.secrets_encrypted is None:
        erased = gettext("Its password was erased when it was delivered. Have the PBX report the user again.")
        return Refusal("delivery", erased)
    addresses = [each.address for each in first.recipients]
    expiry = SAMPLE_EXPIRY if event.sample else kind.expiry
    once_more = Delivery.of(NewMail.about(first.event_id, expiry, first.audience, addresses), first.tenant_id)
    once_more.wait_until(datetime.now(UTC))
    db.session.add(once_more)
    note_decision("sent_again", [(first.tenant_id, first.message_id)])
    db.session.commit()
    return once_more
