"""What became of the last mail to each address: looked for among the tenant's newest mails, and no further."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on

from portal.deliveries.models import Delivery, DeliveryRecipient
from portal.deliveries.replies import meaning
from portal.deliveries.states import Status
from portal.extensions import db
from portal.mail_servers.outcome import words_of

NEWEST: Final = 500  # mails that are looked through
EXPLAINED: Final = (Status.DEFERRED, Status.HELD, Status.FAILED)


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
    newest = select(Delivery.id, Delivery.mail_server, at).order_by(Delivery.id.desc()).limit(NEWEST).subquery()
    query = (
        select(DeliveryRecipient, newest.c.mail_server, newest.c.at)
        .ext(distinct_on(DeliveryRecipient.address))
        .join(newest, DeliveryRecipient.delivery_id == newest.c.id)
        .where(DeliveryRecipient.address.in_(addresses))
        .order_by(DeliveryRecipient.address, newest.c.id.desc())
    )
    return {row.address: _outcome(row, mail_server, moment) for row, mail_server, moment in db.session.execute(query)}


def _outcome(row: DeliveryRecipient, mail_server: str | None, at: datetime) -> LastOutcome:
    status = Status(row.status)
    words = "" if status is Status.SENT else words_of(row)
    return LastOutcome(status, at, words, meaning(row, mail_server) if status in EXPLAINED else "")
