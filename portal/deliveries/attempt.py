"""One attempt at a mail: to the mail server and back, and what it said to the row, in one transaction."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from portal import statements
from portal.database import DATABASE_FAULTS, enter_scope
from portal.deliveries.letters import Letter
from portal.deliveries.reports import DeliveryReport, RecipientReport
from portal.deliveries.schedule import after_others, next_attempt
from portal.deliveries.states import OPEN, Reason, Status, sum_up
from portal.extensions import db
from portal.mail_servers import pause
from portal.mail_servers.connection import STANDARD_BUDGET, SendResult
from portal.mail_servers.outcome import Kind, Outcome, Pause, advice, pause_for
from portal.mail_servers.pool import BUSY
from portal.mail_servers.sending import submit

logger = logging.getLogger(__name__)

BUDGET = STANDARD_BUDGET
STORE_AGAIN_AFTER = (0.2, 1.0, 2.0)  # seconds
STATUS = {
    Kind.SENT: Status.SENT,
    Kind.TEMPORARY: Status.DEFERRED,
    Kind.SETTINGS: Status.HELD,
    Kind.REFUSED: Status.FAILED,
    Kind.UNKNOWN: Status.DEFERRED,
}

# A mail whose lease ran out meanwhile belongs to another process: it has written, or will write, what it learned.
# Nobody waits until the outcome is on disk: should Postgres crash in the next half second, the mail keeps its lease and
# is sent a second time with the same Message-ID, as after any crash between the mail server's reply and this statement.
STORE = """
    WITH mail AS (
        UPDATE deliveries SET status = %(status)s, reason = %(reason)s, next_attempt_at = %(next_attempt_at)s,
            lease_until = NULL, attempts = %(attempts)s, attempted_at = coalesce(%(attempted_at)s, attempted_at)
        WHERE id = %(id)s AND attempts = %(tried)s AND lease_until IS NOT NULL
            AND set_config('synchronous_commit', 'off', true) = 'off'
        RETURNING id, tenant_id, mail_server, attempts, attempted_at
    )
    UPDATE delivery_recipients AS recipient SET (status, stage, code, enhanced_code, text)
        = (told.status, told.stage, told.code, told.enhanced_code, told.text)
    FROM mail, jsonb_to_recordset(%(recipients)s::jsonb)
        AS told (address text, status text, stage text, code int, enhanced_code text, text text)
    WHERE recipient.delivery_id = mail.id AND recipient.address = told.address
    RETURNING mail.id
"""
# The same, and the attempt is kept for the story of the mail. That of a first one which all accepted its rows tell.
STORE_AND_KEEP = STORE.replace(
    """
    UPDATE delivery_recipients""",
    """, attempt AS (
        INSERT INTO delivery_attempts (delivery_id, number, tenant_id, at, mail_server, replies)
        SELECT id, attempts, tenant_id, attempted_at, mail_server, %(recipients)s::jsonb FROM mail
    )
    UPDATE delivery_recipients""",
)
# Of two mails that end at the same time each would see the other one open, and nobody would erase what they share.
LOCK = "SELECT id FROM events WHERE id = %(event_id)s AND secrets_encrypted IS NOT NULL FOR NO KEY UPDATE"
ERASE = """
    UPDATE events SET secrets_encrypted = NULL
    WHERE id = %(event_id)s AND NOT EXISTS (
        SELECT FROM deliveries LEFT JOIN delivery_recipients AS recipient ON recipient.delivery_id = deliveries.id
        WHERE deliveries.event_id = events.id
            AND (deliveries.status = ANY(%(open)s) OR recipient.status = ANY(%(open)s))
    )
"""


def attempt(letter: Letter) -> DeliveryReport:
    """Send a recorded mail whose lease this caller holds, store what became of it, and return that.

    The return value is true even where the database was lost since: then the lease runs out and the mail is tried
    again with the same Message-ID.
    """
    result = _send(letter)
    report = _judge(letter, result.outcomes)
    _store(letter, report, result)
    return report


def _send(letter: Letter) -> SendResult:
    route = letter.route
    return submit(route.settings, letter.message, route.sender.address, letter.recipients, BUDGET)


def _judge(letter: Letter, outcomes: Mapping[str, Outcome]) -> DeliveryReport:
    tried = tuple(_of_recipient(address, outcomes[address], letter) for address in letter.recipients)
    recipients = (*letter.settled, *tried)
    now = datetime.now(UTC)
    again_at = after_others(now) if _was_busy(outcomes) else next_attempt(letter.attempts, now)
    waiting = any(each.status is Status.DEFERRED for each in tried)
    return DeliveryReport(
        message_id=letter.message_id,
        status=sum_up(each.status for each in recipients),
        reason=_why_held(tried, outcomes) or letter.reason,
        next_attempt_at=min(again_at, letter.expires_at) if waiting else None,
        recipients=recipients,
    )


def _was_busy(outcomes: Mapping[str, Outcome]) -> bool:
    """Return whether the mail server was not asked at all, so that it is no attempt."""
    return all(outcome is BUSY for outcome in outcomes.values())


def _why_held(tried: Sequence[RecipientReport], outcomes: Mapping[str, Outcome]) -> Reason | None:
    if all(each.status is not Status.HELD for each in tried):
        return None
    unknown = any(outcome.kind is Kind.UNKNOWN for outcome in outcomes.values())
    return Reason.MAY_HAVE_BEEN_SENT if unknown else Reason.MAIL_SERVER_REJECTED


def _of_recipient(address: str, outcome: Outcome, letter: Letter) -> RecipientReport:
    outcome = outcome.discreet() if letter.route.is_system else outcome
    status = STATUS[outcome.kind]
    if outcome.kind is Kind.UNKNOWN and letter.holds_secrets:
        status = Status.HELD  # a second mail would carry the password twice: a person decides
    return RecipientReport(address, status, outcome.stage, outcome.code, outcome.enhanced_code, outcome.text)


def _store(letter: Letter, report: DeliveryReport, result: SendResult) -> None:
    for wait in (*STORE_AGAIN_AFTER, None):
        try:
            _write(letter, report, result)
        except DATABASE_FAULTS:
            db.session.rollback()
            if wait is None:
                logger.exception("The outcome of %s is not stored: %s", letter.message_id, report.status)
                return
            time.sleep(wait)
        else:
            return


def _write(letter: Letter, report: DeliveryReport, result: SendResult) -> None:
    enter_scope(letter.tenant_id)
    busy = _was_busy(result.outcomes)
    outcome = {
        "id": letter.delivery_id,
        "tried": letter.attempts,
        "attempts": letter.attempts - busy,
        "attempted_at": None if busy else datetime.now(UTC),
        "status": report.status,
        "reason": report.reason,
        "next_attempt_at": report.next_attempt_at,
        "recipients": json.dumps([_row(each) for each in report.recipients if each.address in letter.recipients]),
    }
    plain = letter.attempts == 1 and all(each.kind is Kind.SENT for each in result.outcomes.values())
    store = STORE if busy or plain else STORE_AND_KEEP
    if result.pause is Pause.NONE and not letter.holds_secrets:
        statements.run(store, outcome)
        return
    if statements.run_within_session(store, outcome) is None:
        db.session.rollback()
        return
    if result.pause is not Pause.NONE:
        worst = next(each for each in result.outcomes.values() if pause_for(each) is result.pause)
        pause.apply(
            letter.route.server_id, letter.route.saved_at, result.pause, advice(worst, letter.route.settings.port)
        )
    if letter.holds_secrets:
        erase_secrets(letter.event_id)
    db.session.commit()


def _row(each: RecipientReport) -> dict[str, Any]:
    return {name: getattr(each, name) for name in RecipientReport.__slots__}


def erase_secrets(event_id: UUID) -> None:
    """Forget the secrets of an event when none of its mails needs them any more, within the caller's transaction."""
    if statements.run_within_session(LOCK, {"event_id": event_id}):
        statements.run_within_session(ERASE, {"event_id": event_id, "open": list(OPEN)})
