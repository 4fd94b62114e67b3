"""What became of the last mail to each address: looked for among the tenant's newest mails, and no further."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask_babel import gettext
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on

from portal.deliveries.models import Delivery, DeliveryRecipient
from portal.deliveries.states import Status
from portal.extensions import db
from portal.mail_servers.outcome import Kind, Outcome, Stage, advice, words_of

NEWEST: Final = 500  # mails that are looked through
KIND: Final = {Status.DEFERRED: Kind.TEMPORARY, Status.HELD: Kind.SETTINGS, Status.FAILED: Kind.REFUSED}


@dataclass(frozen=True, slots=True)
class LastOutcome:
    """What became of a mail to an address: the mail server's words, and what they mean in ours, where it said any."""

    status: Status
    at: datetime
    words: str
    meaning: str


def find(addresses: Collection[str]) -> Mapping[str, LastOutcome]:
    """Return the last outcome by address, for those that are among the newest mails of the tenant in scope."""
    at = func.coalesce(Delivery.attempted_at, Delivery.created_at).label("at")
    newest = select(Delivery.id, at).order_by(Delivery.id.desc()).limit(NEWEST).subquery()
    query = (
        select(DeliveryRecipient, newest.c.at)
        .ext(distinct_on(DeliveryRecipient.address))
        .join(newest, DeliveryRecipient.delivery_id == newest.c.id)
        .where(DeliveryRecipient.address.in_(addresses))
        .order_by(DeliveryRecipient.address, newest.c.id.desc())
    )
    return {row.address: _outcome(row, moment) for row, moment in db.session.execute(query)}


def _outcome(row: DeliveryRecipient, at: datetime) -> LastOutcome:
    status = Status(row.status)
    words = words_of(row)
    if not row.stage or status not in KIND:
        return LastOutcome(status, at, "" if status is Status.SENT else words, "")
    said = Outcome(KIND[status], Stage(row.stage), row.code, row.enhanced_code, row.text or "")
    return LastOutcome(status, at, words, gettext(advice(said)))
