"""How a tenant's mail went lately: the last one that a mail server accepted, and the last one that went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.orm import aliased, joinedload, selectinload

from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.replies import meaning
from portal.deliveries.states import Status
from portal.extensions import db
from portal.mail_servers.outcome import words_of

LOOKED_AT: Final = 500  # attempts: a tenant whose last success is further back has none to speak of
SUCCESS: Final = (Status.SENT, Status.PARTIAL)
FAILURE: Final = (Status.PARTIAL, Status.DEFERRED, Status.HELD, Status.FAILED, Status.EXPIRED)


@dataclass(frozen=True, slots=True)
class Success:
    """A mail that was accepted: by which mail server, for whom, and whether somebody sent it to try the portal out."""

    at: datetime
    mail_server: str | None
    addresses: Sequence[str]
    is_sample: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A mail that went wrong: for whom, what the mail server said, and what to make of it in the reader's words."""

    at: datetime
    mail_server: str | None
    status: Status
    address: str
    reply: str
    advice: str


def last_success() -> Success | None:
    """Return the last success among the newest attempts of the tenant in scope, or None."""
    mail = _newest(SUCCESS)
    if mail is None or mail.attempted_at is None:
        return None
    addresses = [each.address for each in mail.recipients if each.status == Status.SENT]
    return Success(mail.attempted_at, mail.mail_server, addresses, mail.event.sample)


def last_failure() -> Failure | None:
    """Return the last failure among the newest attempts of the tenant in scope, or None."""
    mail = _newest(FAILURE)
    if mail is None or mail.attempted_at is None:
        return None
    worst = next((each for each in mail.recipients if each.status in FAILURE), None)
    if worst is None:
        return None
    words, advice = words_of(worst), _advice(mail, worst)
    return Failure(mail.attempted_at, mail.mail_server, Status(worst.status), worst.address, words, advice)


def newest_events(count: int) -> Sequence[RecordedEvent]:
    """Return the newest events of the tenant in scope with their mails, the newest first."""
    query = select(RecordedEvent).order_by(RecordedEvent.id.desc()).limit(count)
    return db.session.scalars(query.options(selectinload(RecordedEvent.deliveries))).all()


def _newest(wanted: Sequence[Status]) -> Delivery | None:
    attempts = select(Delivery).where(Delivery.attempted_at.is_not(None)).order_by(Delivery.attempted_at.desc())
    newest = aliased(Delivery, attempts.limit(LOOKED_AT).subquery())
    query = select(newest).where(newest.status.in_(wanted)).order_by(newest.attempted_at.desc()).limit(1)
    return db.session.scalar(query.options(selectinload(newest.recipients), joinedload(newest.event)))


def _advice(mail: Delivery, recipient: DeliveryRecipient) -> str:
    if recipient.status == Status.EXPIRED:
        return gettext("It could not be delivered in time.")
    return meaning(recipient, mail.mail_server)
