"""Retrying recorded emails: which tenants have some that are due, and which worker gets one."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

from portal.database import fast_sql
from portal.database.engine import DATABASE_ERRORS
from portal.database.fast_sql import Sharing
from portal.database.scope import EVERY_TENANT
from portal.deliveries import shared_limit
from portal.deliveries.attempt import attempt_delivery, found_no_slot, store_unsent
from portal.deliveries.message import OutgoingMessage, build_message, new_token
from portal.deliveries.models import DUE_AT, HAS_DUE_TIME, IS_LEASED, PendingDelivery, PendingRecipient, RecordedEvent
from portal.deliveries.plan import REVISION, Plan, current_plan
from portal.deliveries.schedule import LEASE_DURATION, MAX_DELAY_AFTER_PAUSE, PATIENT_LEASE_DURATION, take_lease
from portal.deliveries.status import Status
from portal.events.parsing import Event
from portal.events.recipient_emails import QUIET_SUMMARY, SETTINGS_LINK
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.mail_servers.service import paused_until
from portal.mail_servers.smtp.client import PATIENT_TIMEOUTS, WORKER_TIMEOUTS
from portal.monitoring import logs
from portal.notifications.settings import Audience, EventSetting

BUSY_TIME: Final = 1.0  # seconds
FIRST_PATIENT_ATTEMPT: Final = 3
MAX_POSTPONED: Final = 1000  # emails in one statement
MUCH_DUE: Final = 1000  # emails
DELAY_AFTER_ERROR: Final = timedelta(minutes=5)

_busy_until: dict[int, float] = {}  # by tenant: no other thread of this process joins those that send its emails

# Leases the email of a tenant that has been due for longest, of those that no other worker has. From the third attempt
# on, the mail server gets all the time that RFC 5321 asks for, with a long lease. Other leases are short, as another
# worker must not wait long for the emails of one that died.
LEASE_NEXT: Final = f"""
    WITH next AS (
        SELECT id, status, next_attempt_at FROM deliveries
        WHERE tenant_id = %(tenant_id)s::int AND {HAS_DUE_TIME} AND {DUE_AT} <= now() AND expires_at > now()
        ORDER BY {DUE_AT}, id LIMIT 1 FOR UPDATE SKIP LOCKED
    ), delivery AS (
        UPDATE deliveries SET status = '{Status.PENDING}', attempts = attempts + 1, next_attempt_at = NULL,
            lease_until = now()
                + CASE WHEN attempts + 1 < {FIRST_PATIENT_ATTEMPT} THEN %(lease)s ELSE %(patient_lease)s END
        FROM next WHERE deliveries.id = next.id
        RETURNING deliveries.*, next.status AS old_status, next.next_attempt_at IS NOT NULL AS was_queued
    )
    SELECT delivery.id, event_id, audience, message_id, expires_at, delivery.status, reason, mail_server_label,
        attempts, lease_until, delivery.next_attempt_at, held_until, old_status, was_queued, recipient.recipients,
        external_id, type, occurred_at, data, secrets_encrypted, is_sample,
        {REVISION.format(tenant_id="%(tenant_id)s::int")} AS revision
    FROM delivery JOIN events ON events.id = event_id, LATERAL (
        SELECT json_agg(json_build_object('email', email, 'status', status, 'stage', stage, 'code', code,
            'enhanced_code', enhanced_code, 'text', text) ORDER BY position) AS recipients
        FROM delivery_recipients WHERE delivery_id = delivery.id
    ) AS recipient
"""  # noqa: S608 (contains no input)
# After an error of the portal itself: this was no attempt.
POSTPONE: Final = f"""
    UPDATE deliveries SET status = %(old_status)s, attempts = attempts - 1,
        lease_until = CASE WHEN NOT %(was_queued)s THEN now() + %(delay)s END,
        next_attempt_at = CASE WHEN %(was_queued)s THEN least(now() + %(delay)s, expires_at) END
    WHERE id = %(id)s AND attempts = %(attempts)s AND {IS_LEASED}
"""  # noqa: S608 (contains no input)
# Soon after the end of a pause, but not all emails at once.
POSTPONE_DUE: Final = f"""
    WITH postponed AS (
        UPDATE deliveries SET next_attempt_at = least(%(pause_end)s + %(max_delay)s * random(), expires_at)
        WHERE id IN (
            SELECT id FROM deliveries
            WHERE tenant_id = %(tenant_id)s::int AND {HAS_DUE_TIME} AND {DUE_AT} <= now() AND lease_until IS NULL
            ORDER BY {DUE_AT} LIMIT %(most)s FOR UPDATE SKIP LOCKED
        )
        RETURNING id
    )
    SELECT count(*) AS count FROM postponed
"""  # noqa: S608 (contains no input)
ADD_RECIPIENTS: Final = f"""
    INSERT INTO delivery_recipients (delivery_id, tenant_id, email, position, status)
    SELECT %(id)s::uuid, %(tenant_id)s::int, email, position - 1, '{Status.PENDING}'
    FROM jsonb_array_elements_text(%(emails)s::jsonb) WITH ORDINALITY AS recipient (email, position)
"""  # noqa: S608 (contains no input)

# If little is due, Postgres reads all of it, however many tenants have queued emails. Much may be of few tenants: then
# Postgres finds the first due time of each tenant by one look into the index, however many emails are queued.
TENANTS_WITH_DUE: Final = f"""
    WITH RECURSIVE due AS MATERIALIZED (
        SELECT tenant_id FROM deliveries WHERE {HAS_DUE_TIME} AND {DUE_AT} <= now() LIMIT %(much)s
    ), first_due (tenant_id, at) AS (
        (SELECT tenant_id, {DUE_AT} FROM deliveries
            WHERE {HAS_DUE_TIME} AND tenant_id > 0 AND (SELECT count(*) FROM due) = %(much)s
            ORDER BY tenant_id, {DUE_AT} LIMIT 1)
        UNION ALL
        SELECT next.* FROM first_due, LATERAL (
            SELECT tenant_id, {DUE_AT} FROM deliveries WHERE {HAS_DUE_TIME} AND tenant_id > first_due.tenant_id
                ORDER BY tenant_id, {DUE_AT} LIMIT 1
        ) AS next
    )
    SELECT array_agg(tenant_id ORDER BY tenant_id <= %(after)s, tenant_id) AS tenant_ids
    FROM (SELECT tenant_id FROM due UNION SELECT tenant_id FROM first_due WHERE at <= now()) AS found
"""  # noqa: S608 (contains no input)


def tenants_with_due(after: int = 0) -> Sequence[int]:
    """Return the tenants with due emails, in turn: those after the given one come first.

    An email is due if its time has come, or if a dead process left its lease. A tenant whose mail server has no free
    slot in this process is left to the threads that use the slots.
    """
    row = fast_sql.run(TENANTS_WITH_DUE, {"after": after, "much": MUCH_DUE}, scope=EVERY_TENANT)
    due = row["tenant_ids"] if row else None
    return [tenant_id for tenant_id in due or () if _busy_until.get(tenant_id, 0) < time.monotonic()]


def retry_next(tenant_id: int, on_lease: Callable[[], object] = lambda: None) -> bool:
    """Attempt the email of the tenant that has been due for longest, and return whether to go on with the next one.

    `on_lease` is called before the email is sent, which may take long.

    Raises:
        DATABASE_ERRORS: the database does not answer.
        Exception: the email cannot be read or built. It is postponed, so that it does not keep others from their turn.
    """
    values = {"tenant_id": tenant_id, "lease": LEASE_DURATION, "patient_lease": PATIENT_LEASE_DURATION}
    leased = fast_sql.run(LEASE_NEXT, values, scope=str(tenant_id), sharing=Sharing(order=()))
    if leased is None:  # nothing is due, or other workers have all of it
        return False
    logs.note_event(leased["event_id"])
    try:
        message, pause_end = _message(tenant_id, leased)
    except DATABASE_ERRORS:
        raise
    except Exception as error:
        error.add_note(f"This was email {leased['id']}.")
        fast_sql.run(POSTPONE, {**leased, "delay": DELAY_AFTER_ERROR}, scope=str(tenant_id))
        raise
    if message is None:
        postponed = _postpone_due(tenant_id, pause_end) if pause_end else 0
        return postponed in {0, MAX_POSTPONED}
    on_lease()
    timeouts = PATIENT_TIMEOUTS if leased["attempts"] >= FIRST_PATIENT_ATTEMPT else WORKER_TIMEOUTS
    attempt_delivery(message, timeouts)
    if found_no_slot(message.delivery.recipients):
        _busy_until[tenant_id] = time.monotonic() + BUSY_TIME
        return False
    return True


def _message(tenant_id: int, leased: Mapping[str, Any]) -> tuple[OutgoingMessage | None, datetime | None]:
    """Return the message of a leased email, or None if it has to wait; and until when its mail server is paused."""
    event = _event_of(tenant_id, leased)
    plan = current_plan(tenant_id, event.data.uses_setting_of or event.event_type.type, leased["revision"])
    if event.event_type in (QUIET_SUMMARY, SETTINGS_LINK):  # there is no switch for these
        plan = replace(plan, setting=EventSetting(enabled=True))
    delivery = PendingDelivery.from_row(leased)
    if not delivery.recipients and delivery.audience == Audience.RECIPIENTS:
        delivery.recipients = _add_late_recipients(plan, event, delivery.id)
    delivery.attempts -= 1  # until it is certain that it is attempted
    take_lease(plan, delivery)
    if delivery.lease_until:
        token = new_token(plan, event, delivery)
        message = build_message(plan, event, delivery, token)  # it may fail: then nothing is counted or stored
        if not shared_limit.hold_if_over(tenant_id, delivery):
            if token:
                fast_sql.run(*token.statement, scope=str(tenant_id))
            return message, None
    store_unsent(tenant_id, delivery, leased["attempts"])
    return None, paused_until(plan.mail_server) if plan.mail_server else None


def _postpone_due(tenant_id: int, pause_end: datetime) -> int:
    """Postpone the due emails of the tenant to the end of a pause, and return how many."""
    values = {"tenant_id": tenant_id, "pause_end": pause_end, "max_delay": MAX_DELAY_AFTER_PAUSE, "most": MAX_POSTPONED}
    row = fast_sql.run(POSTPONE_DUE, values, scope=str(tenant_id))
    return row["count"] if row else 0


def _event_of(tenant_id: int, leased: Mapping[str, Any]) -> Event:
    event_type = ALL_EVENT_TYPES[leased["type"]]
    secrets = RecordedEvent.decrypt_secrets(leased["secrets_encrypted"], tenant_id, leased["event_id"])
    data = event_type.fields.model_validate(leased["data"] | secrets)
    at, is_sample = leased["occurred_at"], leased["is_sample"]
    return Event(leased["external_id"], event_type, None, at, data, canonical="", sample=is_sample)


def _add_late_recipients(plan: Plan, event: Event, delivery_id: UUID) -> Sequence[PendingRecipient]:
    """Add the tenant's current recipients to an email that was held because there were none.

    It is late already, so it does not wait for the end of quiet hours too.
    """
    decision = plan.decide(event.data.uses_setting_of or event.event_type.type, event.data.queue_names)
    emails = [*decision.now, *chain.from_iterable(decision.quiet.values())]
    values = {"id": delivery_id, "tenant_id": plan.tenant.id, "emails": json.dumps(emails)}
    fast_sql.run(ADD_RECIPIENTS, values, scope=str(plan.tenant.id))
    return [PendingRecipient(email) for email in emails]
