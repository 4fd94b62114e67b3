"""One attempt to deliver an email: it sends the message and stores the mail server's replies, in one transaction."""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from portal.database import clock, fast_sql
from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import enter_scope
from portal.deliveries.message import OutgoingMessage
from portal.deliveries.report import DeliveryResult, RecipientResult
from portal.deliveries.schedule import next_attempt_time
from portal.deliveries.status import UNFINISHED, HoldReason, Status, combine
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp import pool
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS, SendResult, Timeouts
from portal.mail_servers.smtp.outcome import BUSY, Pause, ReplyKind, SmtpReply, pause_for

logger = logging.getLogger(__name__)

TIMEOUTS = DEFAULT_TIMEOUTS
STORE_RETRY_DELAYS = (0.2, 1.0, 2.0)  # seconds
STATUS_BY_REPLY: Final = {
    ReplyKind.ACCEPTED: Status.SENT,
    ReplyKind.TEMPORARY: Status.DEFERRED,
    ReplyKind.SETTINGS: Status.HELD,
    ReplyKind.REJECTED: Status.FAILED,
    ReplyKind.UNKNOWN: Status.DEFERRED,
}

# If the lease has expired meanwhile, the email belongs to another process, which stores its own result.
# The commit does not wait for the disk. If Postgres crashes within the next half second, the email keeps its lease and
# is sent again with the same Message-ID, as after any crash between the mail server's reply and this statement.
UPDATE_DELIVERY: Final = """
    WITH delivery AS (
        UPDATE deliveries SET status = %(status)s, reason = %(reason)s, next_attempt_at = %(next_attempt_at)s,
            lease_until = NULL, attempts = %(attempts)s,
            last_attempt_at = coalesce(%(last_attempt_at)s, last_attempt_at)
        WHERE id = %(id)s AND attempts = %(leased_attempt)s AND lease_until IS NOT NULL
            AND set_config('synchronous_commit', 'off', true) = 'off'
        RETURNING id, tenant_id, mail_server_label, attempts, last_attempt_at
    )
    UPDATE delivery_recipients AS recipient SET (status, stage, code, enhanced_code, text)
        = (result.status, result.stage, result.code, result.enhanced_code, result.text)
    FROM delivery, jsonb_to_recordset(%(recipients)s::jsonb)
        AS result (address text, status text, stage text, code int, enhanced_code text, text text)
    WHERE recipient.delivery_id = delivery.id AND recipient.email = result.address
    RETURNING delivery.id
"""
# The same, and a row for the attempt: see `DeliveryAttempt`.
UPDATE_AND_RECORD_ATTEMPT: Final = UPDATE_DELIVERY.replace(
    """
    UPDATE delivery_recipients""",
    """, attempt AS (
        INSERT INTO delivery_attempts
            (delivery_id, number, tenant_id, attempted_at, mail_server_label, recipient_results)
        SELECT id, attempts, tenant_id, last_attempt_at, mail_server_label, %(recipients)s::jsonb FROM delivery
    )
    UPDATE delivery_recipients""",
)
# Without the lock, two emails of an event that end at the same time would each see the other one unfinished, and the
# secrets would stay.
LOCK_SECRETS: Final = """
    SELECT id FROM events WHERE id = %(event_id)s AND secrets_encrypted IS NOT NULL FOR NO KEY UPDATE
"""
ERASE_SECRETS: Final = """
    UPDATE events SET secrets_encrypted = NULL
    WHERE id = %(event_id)s AND NOT EXISTS (
        SELECT FROM deliveries LEFT JOIN delivery_recipients AS recipient ON recipient.delivery_id = deliveries.id
        WHERE deliveries.event_id = events.id
            AND (deliveries.status = ANY(%(unfinished)s) OR recipient.status = ANY(%(unfinished)s))
    )
"""


def attempt_delivery(message: OutgoingMessage, timeouts: Timeouts | None = None) -> DeliveryResult:
    """Send a recorded email whose lease the caller holds, store the result, and return it.

    Without timeouts, somebody waits for the result: see `TIMEOUTS`.

    The result is true even if the database was lost meanwhile. Then the lease expires, and the email is sent again with
    the same Message-ID.
    """
    route = message.route
    sent = pool.current().send(
        route.settings, message.message, route.sender.email, message.recipients, timeouts or TIMEOUTS
    )
    result = _delivery_result(message, sent.replies)
    _store(message, result, sent)
    return result


def _delivery_result(message: OutgoingMessage, replies: Mapping[str, SmtpReply]) -> DeliveryResult:
    attempted = tuple(_recipient_result(email, replies[email], message) for email in message.recipients)
    recipients = (*message.other_results, *attempted)
    retry_at = next_attempt_time(message.attempts, clock.now(), was_busy=found_no_slot(attempted))
    is_deferred = any(recipient.status is Status.DEFERRED for recipient in attempted)
    return DeliveryResult(
        message_id=message.message_id,
        status=combine(recipient.status for recipient in recipients),
        reason=_hold_reason(attempted, replies) or message.hold_reason,
        next_attempt_at=min(retry_at, message.expires_at) if is_deferred else None,
        recipients=recipients,
    )


def found_no_slot(recipients: Iterable[RecipientResult]) -> bool:
    """Return whether no connection slot was free: the mail server was not asked, so it does not count as an attempt."""
    return any(recipient.code is None and recipient.text == BUSY.text for recipient in recipients)


def _hold_reason(attempted: Sequence[RecipientResult], replies: Mapping[str, SmtpReply]) -> HoldReason | None:
    if all(recipient.status is not Status.HELD for recipient in attempted):
        return None
    is_unknown = any(reply.kind is ReplyKind.UNKNOWN for reply in replies.values())
    return HoldReason.MAY_HAVE_BEEN_SENT if is_unknown else HoldReason.MAIL_SERVER_REJECTED


def _recipient_result(email: str, reply: SmtpReply, message: OutgoingMessage) -> RecipientResult:
    if message.route.server.is_system:
        reply = reply.redacted()
    status = STATUS_BY_REPLY[reply.kind]
    if reply.kind is ReplyKind.UNKNOWN and message.has_secrets:
        status = Status.HELD  # a second email would contain the password again: a person decides
    return RecipientResult(email, status, reply.stage, reply.code, reply.enhanced_code, reply.text)


def _store(message: OutgoingMessage, result: DeliveryResult, sent: SendResult) -> None:
    for delay in (*STORE_RETRY_DELAYS, None):
        try:
            _write(message, result, sent)
        except DATABASE_ERRORS:
            db.session.rollback()
            if delay is None:
                logger.exception("The result of %s is not stored: %s", message.message_id, result.status)
                return
            time.sleep(delay)
        else:
            return


def _write(message: OutgoingMessage, result: DeliveryResult, sent: SendResult) -> None:
    enter_scope(message.tenant_id)
    attempted = [recipient for recipient in result.recipients if recipient.address in message.recipients]
    was_busy = found_no_slot(attempted)
    values = {
        "id": message.delivery_id,
        "leased_attempt": message.attempts,
        "attempts": message.attempts - was_busy,
        "last_attempt_at": None if was_busy else clock.now(),
        "status": result.status,
        "reason": result.reason,
        "next_attempt_at": result.next_attempt_at,
        "recipients": json.dumps(
            [{name: getattr(recipient, name) for name in RecipientResult.__slots__} for recipient in attempted]
        ),
    }
    is_accepted = all(reply.kind is ReplyKind.ACCEPTED for reply in sent.replies.values())
    needs_attempt_row = not was_busy and not (is_accepted and message.attempts == 1)
    statement = UPDATE_AND_RECORD_ATTEMPT if needs_attempt_row else UPDATE_DELIVERY
    if sent.pause is Pause.NONE and not message.has_secrets:
        fast_sql.run(statement, values)
        return
    if fast_sql.run_within_session(statement, values) is None:
        db.session.rollback()
        return
    if sent.pause is not Pause.NONE:
        route = message.route
        reply = next(reply for reply in sent.replies.values() if pause_for(reply) is sent.pause)
        advice = mail_server_service.advice_on_pause(route.server, reply)
        mail_server_service.pause(route.server.id, route.server.saved_at, sent.pause, advice)
    if message.has_secrets:
        erase_secrets(message.event_id)
    db.session.commit()


def erase_secrets(event_id: UUID) -> None:
    """Erase the secrets of an event if none of its emails needs them any more, within the caller's transaction."""
    if fast_sql.run_within_session(LOCK_SECRETS, {"event_id": event_id}):
        fast_sql.run_within_session(ERASE_SECRETS, {"event_id": event_id, "unfinished": list(UNFINISHED)})
