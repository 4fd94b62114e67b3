"""One attempt to deliver an email: it sends the message, stores the mail server's replies and may pause the server."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, literal, select, text

from portal.database import clock, fast_sql
from portal.database.engine import DATABASE_ERRORS
from portal.database.fast_sql import Sharing
from portal.database.prepared import Statement
from portal.deliveries.message import OutgoingMessage
from portal.deliveries.models import IS_LEASED, PendingDelivery, PendingRecipient, RecordedEvent, stored_result
from portal.deliveries.schedule import next_attempt_time
from portal.deliveries.status import UNFINISHED, HoldReason, Status, combine
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp import pool
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.outcome import BUSY, ReplyKind, SmtpReply, pause_for
from portal.monitoring.counters import EMAILS, SMTP_SECONDS, note

logger = logging.getLogger(__name__)

STORE_RETRY_DELAYS = (0.2, 1.0, 2.0)  # seconds
SHORT_LOCK_TIMEOUT: Final = text("SET LOCAL lock_timeout = '500ms'")  # the PBX is waiting
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
UPDATE_DELIVERY: Final = f"""
    WITH delivery AS (
        UPDATE deliveries SET status = %(status)s::text, reason = %(reason)s::text, lease_until = NULL,
            next_attempt_at = %(next_attempt_at)s, attempts = %(attempts)s,
            mail_server_label = coalesce(%(mail_server_label)s, mail_server_label),
            last_attempt_at = coalesce(%(last_attempt_at)s, last_attempt_at)
        WHERE id = %(id)s AND attempts = %(leased_attempt)s AND {IS_LEASED}
            AND set_config('synchronous_commit', 'off', true) = 'off'
        RETURNING id"""  # noqa: S608 (contains no input)
# See `DeliveryAttempt`.
INSERT_ATTEMPT: Final = """, tenant_id, mail_server_label, attempts, last_attempt_at
    ), attempt AS (
        INSERT INTO delivery_attempts
            (delivery_id, number, tenant_id, attempted_at, mail_server_label, recipient_results)
        SELECT id, attempts, tenant_id, last_attempt_at, mail_server_label, %(recipients)s::jsonb FROM delivery"""
# With `= ANY (emails)`, Postgres would expect ten look-ups in an index, and plan the statement again and again in the
# hope of fewer.
UPDATE_RECIPIENTS: Final = """
    ) UPDATE delivery_recipients AS recipient SET (status, stage, code, enhanced_code, text)
        = (result.status, result.stage, result.code, result.enhanced_code, result.text)
    FROM delivery, {rows}
    WHERE recipient.delivery_id = delivery.id AND emails @> ARRAY[recipient.email::text]
    RETURNING delivery.id"""
_result_of = attrgetter("status", "stage", "code", "enhanced_code", "text")
RESULT_COLUMNS: Final = "status text, stage text, code int, enhanced_code text, text text, emails text[]"
# Without the lock, two emails of an event that end at the same time would each see the other one unfinished, and the
# secrets would stay.
UNFINISHED_SQL: Final = "({})".format(", ".join(f"'{status}'" for status in UNFINISHED))
LOCK_SECRETS: Final = """
    SELECT id FROM events WHERE id = %(event_id)s AND secrets_encrypted IS NOT NULL FOR NO KEY UPDATE
"""
ERASE_SECRETS: Final = f"""
    UPDATE events SET secrets_encrypted = NULL
    WHERE id = %(event_id)s AND secrets_encrypted IS NOT NULL AND NOT EXISTS (
        SELECT FROM deliveries LEFT JOIN delivery_recipients AS recipient ON recipient.delivery_id = deliveries.id
        WHERE deliveries.event_id = events.id
            AND (deliveries.status IN {UNFINISHED_SQL} OR recipient.status IN {UNFINISHED_SQL})
    )
"""  # noqa: S608 (contains no input)


def attempt_delivery(message: OutgoingMessage, timeouts: Timeouts | None = None) -> None:
    """Send a recorded email whose lease the caller holds. The result is noted in it, and stored.

    Without timeouts, the short ones apply: the PBX waits for the result.

    The result is true even if the database was lost meanwhile. Then the lease expires, and the email is sent again with
    the same Message-ID.
    """
    plan, delivery, began_at = message.plan, message.delivery, time.monotonic()
    attempted, leased_attempt = delivery.unfinished, delivery.attempts
    emails, timeouts = [recipient.email for recipient in attempted], timeouts or DEFAULT_TIMEOUTS
    replies = pool.current().send(plan.smtp_settings, message.message, plan.sender.email, emails, timeouts)
    seconds = time.monotonic() - began_at
    _note_replies(message, attempted, replies)
    owner, last_attempt_at = "system" if delivery.uses_shared_server else "tenant", None
    if found_no_slot(attempted):
        delivery.attempts -= 1
        note((EMAILS, 1, ("busy", owner)))
    else:
        last_attempt_at = clock.now()
        note((EMAILS, 1, (delivery.status, owner)))
        note((SMTP_SECONDS, seconds, (owner,)))
    _store(message, _update_delivery(delivery, attempted, leased_attempt, last_attempt_at), replies.values())


def _note_replies(
    message: OutgoingMessage, attempted: Sequence[PendingRecipient], replies: Mapping[str, SmtpReply]
) -> None:
    delivery = message.delivery
    for recipient in attempted:
        reply = replies[recipient.email]
        recipient.status = STATUS_BY_REPLY[reply.kind]
        if reply.kind is ReplyKind.UNKNOWN and message.has_secrets:
            recipient.status = Status.HELD  # a second email would contain the password again: a person decides
        if delivery.uses_shared_server:
            reply = reply.redacted()
        recipient.stage, recipient.code = reply.stage, reply.code
        recipient.enhanced_code, recipient.text = reply.enhanced_code, reply.text
    statuses = {recipient.status for recipient in delivery.recipients}
    delivery.status, delivery.lease_until = combine(statuses), None
    if any(recipient.status is Status.HELD for recipient in attempted):
        is_unknown = any(reply.kind is ReplyKind.UNKNOWN for reply in replies.values())
        delivery.reason = HoldReason.MAY_HAVE_BEEN_SENT if is_unknown else HoldReason.MAIL_SERVER_REJECTED
    if Status.DEFERRED in statuses:
        retry_at = next_attempt_time(delivery.attempts, clock.now(), was_busy=found_no_slot(attempted))
        delivery.next_attempt_at = min(retry_at, delivery.expires_at)


def found_no_slot(recipients: Iterable[PendingRecipient]) -> bool:
    """Return whether no connection slot was free: the mail server was not asked, so it does not count as an attempt."""
    return any(recipient.code is None and recipient.text == BUSY.text for recipient in recipients)


def store_unsent(tenant_id: int, delivery: PendingDelivery, leased_attempt: int) -> None:
    """Store that a leased email is held or queued instead of being attempted."""
    fast_sql.run(*_update_delivery(delivery, delivery.recipients, leased_attempt), scope=str(tenant_id))


@cache
def _update_sql(results: int, *, is_attempt_kept: bool) -> str:
    rows = fast_sql.rows("result", RESULT_COLUMNS, results) if results else ""
    rest = UPDATE_RECIPIENTS.format(rows=rows) if rows else ") SELECT id FROM delivery"
    return UPDATE_DELIVERY + (INSERT_ATTEMPT if is_attempt_kept else "") + rest


def _update_delivery(
    delivery: PendingDelivery, changed: Sequence[PendingRecipient], leased_attempt: int, at: datetime | None = None
) -> Statement:
    """Return the statement that stores an email's state. Recipients with the same result are in one row of it."""
    emails = defaultdict(list)
    for recipient in changed:
        emails[_result_of(recipient)].append(recipient.email)
    results = [(*result, its_emails) for result, its_emails in emails.items()]
    values = vars(delivery) | {"leased_attempt": leased_attempt, "last_attempt_at": at}
    values |= fast_sql.row_values("result", RESULT_COLUMNS, results)
    is_accepted = all(recipient.status is Status.SENT for recipient in changed)
    if is_attempt_kept := at is not None and not (is_accepted and delivery.attempts == 1):
        values["recipients"] = json.dumps(list(map(stored_result, changed)))
    return _update_sql(len(results), is_attempt_kept=is_attempt_kept), values


def _store(message: OutgoingMessage, statement: Statement, replies: Collection[SmtpReply]) -> None:
    event_id = message.delivery.event_id
    values, ids, sharing = statement[1], {"event_id": event_id}, Sharing(order=(str(event_id),), is_durable=False)
    erase = [(LOCK_SECRETS, ids), (ERASE_SECRETS, ids)] if message.has_secrets else []
    for delay in (*STORE_RETRY_DELAYS, None):
        try:
            row = fast_sql.run(*statement, then=erase, scope=str(message.plan.tenant.id), sharing=sharing)
            break
        except DATABASE_ERRORS:
            db.session.rollback()
            if delay is None:
                logger.exception("The result of %s is not stored: %s", values["message_id"], values["status"])
                return
            time.sleep(delay)
    reply = max(replies, key=pause_for)
    if row and message.plan.mail_server and pause_for(reply):
        _pause(message.plan.mail_server, reply)


def _pause(server: MailServer, reply: SmtpReply) -> None:
    """Pause the mail server, in a transaction of its own: an open change of its settings would delay the result."""
    advice = mail_server_service.advice_on_pause(server, reply)
    try:
        db.session.execute(SHORT_LOCK_TIMEOUT)
        mail_server_service.pause(server.id, server.saved_at, pause_for(reply), advice)
        db.session.commit()
    except DATABASE_ERRORS as error:  # the next attempt pauses it
        db.session.rollback()
        logger.warning("Mail server %s is not paused: %s", server.id, error)


def erase_secrets(event_ids: Collection[UUID]) -> None:
    """Erase the secrets of these events if none of their emails needs them any more, within the caller's transaction.

    The events are locked one by one, always in the same order, so that no two processes wait for each other.
    """
    ids = literal([*event_ids], ARRAY(Uuid))  # one parameter, however many there are
    has_secrets = RecordedEvent.secrets_encrypted.is_not(None)
    query = select(RecordedEvent.id).where(RecordedEvent.id == any_(ids), has_secrets).order_by(RecordedEvent.id)
    for event_id in db.session.scalars(query).all():
        if fast_sql.run_within_session(LOCK_SECRETS, {"event_id": event_id}):
            fast_sql.run_within_session(ERASE_SECRETS, {"event_id": event_id})
