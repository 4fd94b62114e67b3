"""The last results of email: a tenant's last attempt, success and failure, and the last result of each recipient."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask_babel import gettext
from sqlalchemy import text

from portal.database import fast_sql
from portal.database.detached import detached
from portal.database.scope import current_scope
from portal.deliveries.models import DeliveryRecipient
from portal.deliveries.status import Status
from portal.deliveries.timeline import explain_reply
from portal.extensions import db
from portal.mail_servers.smtp.outcome import reply_text

MAX_SEARCHED: Final = 500  # emails: an older result says little about the present
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
    delivery, recipients = _newest_attempted(tuple(Status))
    unsent = [recipient for recipient in recipients if recipient.status != Status.SENT]
    return _result(delivery["status"], delivery, unsent or recipients) if delivery else None


def last_success() -> LastResult | None:
    """Return the last email of the tenant in scope that was accepted, for the recipients that it was accepted for."""
    delivery, recipients = _newest_attempted((Status.SENT, Status.PARTIAL))
    accepted = [recipient for recipient in recipients if recipient.status == Status.SENT]
    return _result(Status.SENT, delivery, accepted) if delivery else None


def last_failure() -> LastResult | None:
    """Return the last email of the tenant in scope that failed, for the first recipient that it failed for."""
    delivery, recipients = _newest_attempted(FAILURES)
    failed = [recipient for recipient in recipients if recipient.status in FAILURES][:1]
    return _result(failed[0].status, delivery, failed) if failed else None


def last_results(emails: Collection[str]) -> Mapping[str, LastResult]:
    """Return the last result for each of these recipients of the tenant in scope that is among the newest emails."""
    values = {"tenant_id": int(current_scope()), "newest": MAX_SEARCHED, "emails": [*emails]}
    results = {}
    for row in db.session.execute(text(LAST_RESULTS), values).mappings():
        recipient = detached(DeliveryRecipient, dict(row))
        results[recipient.email] = _result(recipient.status, row, [recipient])
    return results


LAST_RESULTS: Final = """
    SELECT DISTINCT ON (recipient.email) recipient.*, newest.mail_server_label, newest.at, newest.is_sample
    FROM (
        SELECT delivery.id, mail_server_label, coalesce(last_attempt_at, created_at) AS at, is_sample
        FROM deliveries AS delivery JOIN events ON events.id = event_id
        WHERE delivery.tenant_id = :tenant_id ORDER BY delivery.id DESC LIMIT :newest
    ) AS newest JOIN delivery_recipients AS recipient ON recipient.delivery_id = newest.id
    WHERE recipient.email = ANY(:emails)
    ORDER BY recipient.email, newest.id DESC
"""
# SQLAlchemy would take longer than the statement, which every page of a tenant runs.
NEWEST_ATTEMPTED: Final = """
    SELECT delivery.status, delivery.last_attempt_at AS at, delivery.mail_server_label, events.is_sample, (
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


def _newest_attempted(statuses: Sequence[Status]) -> tuple[Mapping[str, Any], Sequence[DeliveryRecipient]]:
    """Return the email with one of these statuses whose last attempt is the newest; nothing if others are newer."""
    values = {"tenant_id": int(current_scope()), "newest": MAX_SEARCHED, "statuses": [*statuses]}
    row = fast_sql.run_within_session(NEWEST_ATTEMPTED, values)
    return (row, [detached(DeliveryRecipient, values) for values in row["recipients"]]) if row else ({}, [])


def _result(status: str, delivery: Mapping[Any, Any], recipients: Sequence[DeliveryRecipient]) -> LastResult:
    label, emails = delivery["mail_server_label"], [recipient.email for recipient in recipients]
    reply = advice = ""
    if recipients and recipients[0].status != Status.SENT:
        first = recipients[0]
        reply = reply_text(first.code, first.enhanced_code, first.text)
        advice = explain_reply(first, label) if first.status in EXPLAINED else ""
        if first.status == Status.EXPIRED:
            advice = gettext("It could not be delivered in time.")
    return LastResult(Status(status), delivery["at"], label, delivery["is_sample"], emails, reply, advice)
