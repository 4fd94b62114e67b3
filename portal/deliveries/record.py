"""The rows of an event and of its mails."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from portal import crypto, statements
from portal.deliveries.mail import Mail
from portal.deliveries.models import RecordedEvent
from portal.deliveries.states import Reason, Status
from portal.notifications.events import Event
from portal.tenants.models import Tenant

# The event, its storm, its mails and their recipients, in one statement: an event that is recorded already leaves
# nothing to insert. A storm that is over and held nothing makes room for the next one; else it goes on until its digest
# was written.
RECORD = """
    WITH event AS (
        INSERT INTO events (id, tenant_id, event_id, type, occurred_at, fingerprint, data, secrets_encrypted,
            ignored_reason, sample)
        VALUES (%(id)s, %(tenant_id)s, %(event_id)s, %(type)s, %(occurred_at)s, %(fingerprint)s, %(data)s::jsonb,
            %(secrets)s, %(ignored)s, %(sample)s)
        ON CONFLICT ON CONSTRAINT uq_events_tenant_id_event_id DO NOTHING
        RETURNING id
    ), storm AS (
        INSERT INTO storms (tenant_id, event_type, queue, started_at, ends_at, events, held)
        SELECT %(tenant_id)s, %(type)s, %(queue)s::varchar, now(), now() + %(storm_lasts)s, 1, 0
        FROM event WHERE %(queue)s::varchar IS NOT NULL
        ON CONFLICT ON CONSTRAINT pk_storms DO UPDATE SET (started_at, ends_at, events, held) = (
            SELECT CASE WHEN over THEN now() ELSE storms.started_at END,
                CASE WHEN over THEN excluded.ends_at ELSE storms.ends_at END,
                count, CASE WHEN over THEN 0 ELSE storms.held END + (count > %(storm_limit)s)::int
            FROM (SELECT storms.ends_at <= now() AND storms.held = 0) AS state (over),
                LATERAL (SELECT CASE WHEN over THEN 1 ELSE storms.events + 1 END) AS counted (count)
        )
        RETURNING events > %(storm_limit)s AS throttles
    ), recorded AS (
        SELECT event.id, coalesce(storm.throttles, false) AS throttled FROM event LEFT JOIN storm ON true
    ), mail AS (
        SELECT mail.*
        FROM recorded, jsonb_to_recordset(CASE WHEN throttled THEN %(held)s ELSE %(mails)s END::jsonb) AS mail (
            id uuid, audience text, message_id text, status text, reason text, mail_server text, attempts int,
            lease_until timestamptz, next_attempt_at timestamptz, expires_at timestamptz, recipients jsonb
        )
    ), delivery AS (
        INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, mail_server, attempts,
            lease_until, next_attempt_at, expires_at)
        SELECT id, %(tenant_id)s, %(id)s, audience, message_id, status, reason, mail_server, attempts,
            lease_until, next_attempt_at, expires_at
        FROM mail
    ), recipient AS (
        INSERT INTO delivery_recipients (delivery_id, tenant_id, address, position, status, text)
        SELECT mail.id, %(tenant_id)s, each.address, each.position - 1, each.status, each.text
        FROM mail, ROWS FROM (jsonb_to_recordset(mail.recipients) AS (address text, status text, text text))
            WITH ORDINALITY AS each (address, status, text, position)
    )
    SELECT throttled FROM recorded
"""


class Recorded(Enum):
    """What `record` found."""

    NEW = "new"
    THROTTLED = "throttled"  # new, and its mails are held
    BEFORE = "before"  # the tenant has an event with the same id: nothing was written


def record(
    tenant: Tenant,
    event: Event,
    row_id: UUID,
    mails: Sequence[Mail],
    *,
    ignored: Reason | None = None,
    run: Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None] = statements.run,
) -> Recorded:
    """Write the event and its mails.

    Args:
        tenant: whose event it is.
        event: with an id.
        row_id: of the event's row.
        mails: as they were prepared. Where a storm throttles them, they are recorded as held.
        ignored: why there are no mails.
        run: `statements.run_within_session` makes it a part of the session's transaction, which the caller commits.
    """
    given = [_row(mail) for mail in mails]
    recorded = run(
        RECORD,
        {
            "id": row_id,
            "tenant_id": tenant.id,
            "event_id": event.id,
            "type": event.kind.type,
            "occurred_at": event.time,
            "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
            "data": json.dumps(event.data.public()),
            "secrets": None if ignored else RecordedEvent.seal(event.data.secrets(), tenant.id, row_id),
            "ignored": ignored,
            "sample": event.sample,
            "queue": None if ignored or event.sample else event.data.queue,
            "storm_lasts": timedelta(minutes=tenant.storm_minutes),
            "storm_limit": tenant.storm_limit,
            "mails": json.dumps(given),
            "held": json.dumps([_throttled(mail) for mail in given]),
        },
    )
    if recorded is None:
        return Recorded.BEFORE
    return Recorded.THROTTLED if recorded["throttled"] else Recorded.NEW


def _row(mail: Mail) -> dict[str, Any]:
    times = {name: getattr(mail, name) for name in ("lease_until", "next_attempt_at", "expires_at")}
    return {
        "id": mail.id.hex,
        "audience": mail.audience,
        "message_id": mail.message_id,
        "status": mail.status,
        "reason": mail.reason,
        "mail_server": mail.mail_server,
        "attempts": mail.attempts,
        **{name: time and time.isoformat() for name, time in times.items()},
        "recipients": [{"address": each.address, "status": each.status, "text": each.text} for each in mail.recipients],
    }


def _throttled(row: Mapping[str, Any]) -> dict[str, Any]:
    recipients = [each | {"status": Status.HELD, "text": None} for each in row["recipients"]]
    held = {"status": Status.HELD, "reason": Reason.THROTTLED, "recipients": recipients}
    return {**row, **held, "mail_server": None, "attempts": 0, "lease_until": None, "next_attempt_at": None}
