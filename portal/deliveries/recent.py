"""The last results of email: a tenant's last attempt, success and failure, and the last result of each recipient."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask_babel import gettext
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import selectinload

from portal.database import fast_sql
from portal.database.detached import detached
from portal.database.scope import current_scope
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.status import Status
from portal.deliveries.timeline import explain_reply
from portal.extensions import db
from portal.mail_servers.smtp.outcome import reply_text

MAX_SEARCHED: Final = 500  # emails: an older result says little about the present
SUCCESSES: Final = (Status.SENT, Status.PARTIAL)
FAILURES: Final = (Status.PARTIAL, Status.DEFERRED, Status.HELD, Status.FAILED, Status.EXPIRED)
EXPLAINED: Final = (Status.DEFERRED, Status.HELD, Status.FAILED)


@dataclass(frozen=True, slots=True)
class LastResult:
    """The result of an email for some of its recipients.

    `reply` is the mail server's last reply, or the portal's text if there was none, and `advice` is what to do about
    it. Both are empty if the email was accepted.
    """

    status: Status
    at: datetime
    mail_server_label: str | None
    is_sample: bool
    recipients: Sequence[str]
    reply: str
    advice: str


def last_attempt() -> LastResult | None:
    """Return the result of the most recent attempt of the tenant in scope, or None."""
    delivery = _newest_attempted(tuple(Status))
    if delivery is None:
        return None
    unsent = [recipient for recipient in delivery.recipients if recipient.status != Status.SENT]
    return _result(Status(delivery.status), delivery, unsent or delivery.recipients)


def last_success() -> LastResult | None:
    """Return the last email of the tenant in scope that was accepted, for the recipients that it was accepted for."""
    delivery = _newest_attempted(SUCCESSES)
    if delivery is None:
        return None
    accepted = [recipient for recipient in delivery.recipients if recipient.status == Status.SENT]
    return _result(Status.SENT, delivery, accepted)


def last_failure() -> LastResult | None:
    """Return the last email of the tenant in scope that failed, for the first recipient that it failed for."""
    delivery = _newest_attempted(FAILURES)
    failed = [recipient for recipient in delivery.recipients if recipient.status in FAILURES] if delivery else []
    return _result(Status(failed[0].status), delivery, failed[:1]) if delivery and failed else None


def last_results(emails: Collection[str]) -> Mapping[str, LastResult]:
    """Return the last result for each of these recipients of the tenant in scope that is among the newest emails."""
    at = func.coalesce(Delivery.last_attempt_at, Delivery.created_at).label("at")
    newest = (
        select(Delivery.id, Delivery.mail_server_label, at, RecordedEvent.is_sample)
        .join(RecordedEvent, RecordedEvent.id == Delivery.event_id)
        .order_by(Delivery.id.desc())
        .limit(MAX_SEARCHED)
        .subquery()
    )
    query = (
        select(DeliveryRecipient, newest.c.mail_server_label, newest.c.at, newest.c.is_sample)
        .ext(distinct_on(DeliveryRecipient.email))
        .join(newest, DeliveryRecipient.delivery_id == newest.c.id)
        .where(DeliveryRecipient.email.in_(emails))
        .order_by(DeliveryRecipient.email, newest.c.id.desc())
    )
    return {
        recipient.email: LastResult(
            Status(recipient.status), at, label, is_sample, [recipient.email], *_reply_and_advice(recipient, label)
        )
        for recipient, label, at, is_sample in db.session.execute(query)
    }


def newest_events(limit: int) -> Sequence[RecordedEvent]:
    """Return the newest events of the tenant in scope with their emails, newest first."""
    query = select(RecordedEvent).order_by(RecordedEvent.id.desc()).limit(limit)
    return db.session.scalars(query.options(selectinload(RecordedEvent.deliveries))).all()


# SQLAlchemy would take longer than the statement, which every page of a tenant runs.
NEWEST_ATTEMPTED: Final = """
    SELECT delivery.status, delivery.last_attempt_at, delivery.mail_server_label, events.is_sample, (
        SELECT json_agg(recipient ORDER BY recipient.position) FROM delivery_recipients AS recipient
        WHERE recipient.delivery_id = delivery.id
    ) AS recipients
    FROM (
        SELECT * FROM deliveries WHERE tenant_id = %(tenant_id)s AND last_attempt_at IS NOT NULL
        ORDER BY last_attempt_at DESC LIMIT %(newest)s
    ) AS delivery
    JOIN events ON events.id = delivery.event_id
    WHERE delivery.status = ANY(%(statuses)s)
    ORDER BY delivery.last_attempt_at DESC LIMIT 1
"""


def _newest_attempted(statuses: Sequence[Status]) -> Delivery | None:
    """Return the email with one of these statuses whose last attempt is the newest, if it is among the newest."""
    values = {"tenant_id": int(current_scope()), "newest": MAX_SEARCHED, "statuses": [*statuses]}
    row = fast_sql.run_within_session(NEWEST_ATTEMPTED, values)
    if row is None:
        return None
    values = dict(row) | {"recipients": [detached(DeliveryRecipient, values) for values in row["recipients"]]}
    return detached(Delivery, values | {"event": detached(RecordedEvent, {"is_sample": row["is_sample"]})})


def _result(status: Status, delivery: Delivery, recipients: Sequence[DeliveryRecipient]) -> LastResult:
    assert delivery.last_attempt_at is not None
    label, emails = delivery.mail_server_label, [recipient.email for recipient in recipients]
    reply, advice = _reply_and_advice(recipients[0], label) if recipients else ("", "")
    return LastResult(status, delivery.last_attempt_at, label, delivery.event.is_sample, emails, reply, advice)


def _reply_and_advice(recipient: DeliveryRecipient, mail_server_label: str | None) -> tuple[str, str]:
    if recipient.status == Status.SENT:
        return "", ""
    advice = explain_reply(recipient, mail_server_label) if recipient.status in EXPLAINED else ""
    if recipient.status == Status.EXPIRED:
        advice = gettext("It could not be delivered in time.")
    return reply_text(recipient.code, recipient.enhanced_code, recipient.text), advice
