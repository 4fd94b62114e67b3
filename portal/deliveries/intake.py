"""Recording an event, and sending its emails: the event's way from the PBX's request to its result.

The event, its emails and their recipients are written in one statement. Only after that is the content of the emails
built and sent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from uuid_utils.compat import uuid4, uuid7

from portal import crypto
from portal.database import fast_sql
from portal.deliveries import shared_limit
from portal.deliveries.attempt import attempt_delivery
from portal.deliveries.context import EventContext
from portal.deliveries.message import build_message
from portal.deliveries.models import PendingDelivery, RecordedEvent, hold, hold_until
from portal.deliveries.report import EventResult, delivery_result, event_result, recorded_event_result
from portal.deliveries.schedule import Route, ignore_reason, take_lease
from portal.deliveries.status import HoldReason, Status
from portal.events.parsing import Event
from portal.extensions import db
from portal.notifications.decision import Decision
from portal.notifications.settings import Audience
from portal.tenants.models import Tenant


def accept_event(context: EventContext, event: Event) -> EventResult | None:
    """Record the event of the tenant in scope, send its emails, and return the result.

    An event that is already recorded sends nothing: its current result is returned, or None if the content was another.
    """
    event_id = event.id or str(uuid4())
    event, row_id = replace(event, id=event_id), uuid7()
    deliveries = _new_deliveries(context, event, row_id)
    ignored = None if deliveries else ignore_reason(context) or HoldReason.NO_RECIPIENT_WANTS_IT
    routes = [None if delivery.held_until else take_lease(context, delivery) for delivery in deliveries]
    has_secrets = bool(event.data.secret_fields())
    if not record_event(context.tenant, event, row_id, deliveries, routes, ignored=ignored, in_session=has_secrets):
        db.session.rollback()
        return _duplicate_result(event)
    messages = [
        build_message(context, event, delivery, route) if route and delivery.lease_until else None
        for delivery, route in zip(deliveries, routes, strict=True)
    ]
    if has_secrets:  # commits the event together with the provisioning tokens that its messages contain
        db.session.commit()
    if ignored:
        return EventResult(event_id, Status.IGNORED, ignored, duplicate=False, deliveries=(), warnings=event.warnings)
    results = [
        attempt_delivery(message) if message else delivery_result(delivery)
        for delivery, message in zip(deliveries, messages, strict=True)
    ]
    return replace(event_result(event_id, results), warnings=event.warnings)


def _duplicate_result(event: Event) -> EventResult | None:
    row = db.session.scalars(select(RecordedEvent).where(RecordedEvent.external_id == event.id)).one()
    is_same = crypto.keyring().has_fingerprint(event.canonical.encode(), row.fingerprint)
    return recorded_event_result(row) if is_same else None


def _new_deliveries(context: EventContext, event: Event, row_id: UUID) -> Sequence[PendingDelivery]:
    """Return the emails about an event, none if it is ignored.

    The new user gets an email of their own, which names nobody else. Recipients in quiet hours get one of their own,
    which is held until these end. If the tenant has recipients but none of them gets this event, there is no email to
    them. If it has no recipients at all, the email waits for some.
    """
    if ignore_reason(context):
        return []
    user_email, audience = event.data.user_email, context.setting.audience
    deliveries = []
    if audience is not Audience.USER:
        decision = context.decide(event.event_type.type, event.data.queue_names)
        deliveries = new_deliveries(row_id, event.expiry, decision, even_if_empty=not context.has_recipients)
    if audience is Audience.USER or (audience is Audience.BOTH and user_email):
        emails = [user_email] if user_email else []
        deliveries.append(PendingDelivery.create(row_id, event.expiry, Audience.USER, emails))
    return deliveries


def new_deliveries(
    event_id: UUID, expiry: timedelta, decision: Decision, *, even_if_empty: bool = False
) -> list[PendingDelivery]:
    """Return the emails to recipients: one to send now, if anyone gets it now, and one for each end of quiet hours."""
    deliveries = []
    if decision.now or even_if_empty:
        deliveries.append(PendingDelivery.create(event_id, expiry, Audience.RECIPIENTS, decision.now))
    for end, emails in decision.quiet.items():
        deliveries.append(PendingDelivery.create(event_id, expiry, Audience.RECIPIENTS, emails))
        hold_until(deliveries[-1], end)
    return deliveries


# The event, its storm, its emails and their recipients, in one statement. If the event is already recorded, nothing is
# inserted. A storm whose time is over and that held nothing is replaced by a new one. Otherwise it continues until its
# digest is written.
INSERT_EVENT = f"""
    WITH event AS (
        INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data, secrets_encrypted,
            ignored_reason, warnings, is_sample)
        VALUES (%(id)s, %(tenant_id)s, %(external_id)s, %(type)s, %(occurred_at)s, %(fingerprint)s, %(data)s::jsonb,
            %(secrets)s, %(ignored)s, %(warnings)s::jsonb, %(is_sample)s)
        ON CONFLICT ON CONSTRAINT uq_events_tenant_id_external_id DO NOTHING
        RETURNING id
    ), storm AS (
        INSERT INTO storms (tenant_id, event_type, queue_number, started_at, ends_at, event_count, held_count)
        SELECT %(tenant_id)s, %(type)s, %(queue_number)s::varchar, now(), now() + %(storm_duration)s, 1, 0
        FROM event WHERE %(queue_number)s::varchar IS NOT NULL
        ON CONFLICT ON CONSTRAINT pk_storms DO UPDATE SET (started_at, ends_at, event_count, held_count) = (
            SELECT CASE WHEN over THEN now() ELSE storms.started_at END,
                CASE WHEN over THEN excluded.ends_at ELSE storms.ends_at END,
                count, CASE WHEN over THEN 0 ELSE storms.held_count END + (count > %(storm_limit)s)::int
            FROM (SELECT storms.ends_at <= now() AND storms.held_count = 0) AS state (over),
                LATERAL (SELECT CASE WHEN over THEN 1 ELSE storms.event_count + 1 END) AS counted (count)
        )
        RETURNING event_count > %(storm_limit)s AS throttles
    ), unthrottled AS (
        SELECT event.id FROM event LEFT JOIN storm ON true WHERE NOT coalesce(storm.throttles, false)
    ), usage AS ({shared_limit.COUNT.format(rows="unthrottled")}), recorded AS (
        SELECT event.id, coalesce(storm.throttles, false) AS throttled, coalesce(usage.is_over, false) AS is_over_limit
        FROM event LEFT JOIN storm ON true LEFT JOIN usage ON true
    ), input AS (
        SELECT input.*
        FROM recorded, jsonb_to_recordset(
            CASE WHEN throttled THEN %(throttled)s WHEN is_over_limit THEN %(over_limit)s ELSE %(deliveries)s END::jsonb
        ) AS input (
            id uuid, audience text, message_id text, status text, reason text, mail_server_label text, attempts int,
            lease_until timestamptz, next_attempt_at timestamptz, held_until timestamptz, expires_at timestamptz,
            recipients jsonb
        )
    ), delivery AS (
        INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, mail_server_label,
            attempts, lease_until, next_attempt_at, held_until, expires_at)
        SELECT id, %(tenant_id)s, %(id)s, audience, message_id, status, reason, mail_server_label, attempts,
            lease_until, next_attempt_at, held_until, expires_at
        FROM input
    ), recipient AS (
        INSERT INTO delivery_recipients (delivery_id, tenant_id, email, position, status, text)
        SELECT input.id, %(tenant_id)s, recipient.email, recipient.position - 1, recipient.status, recipient.text
        FROM input, ROWS FROM (jsonb_to_recordset(input.recipients) AS (email text, status text, text text))
            WITH ORDINALITY AS recipient (email, status, text, position)
    )
    SELECT throttled, is_over_limit FROM recorded
"""  # noqa: S608 (contains no input)


def record_event(
    tenant: Tenant,
    event: Event,
    row_id: UUID,
    deliveries: Sequence[PendingDelivery],
    routes: Sequence[Route | None],
    *,
    ignored: HoldReason | None = None,
    in_session: bool = False,
) -> bool:
    """Write the event and its emails, or return False if the tenant has an event with the same id.

    The emails are held if a storm throttles them, or if the tenant has reached a limit of the shared mail server.
    `routes` has the route of each email that is leased, and `ignored` says why there are no emails. With `in_session`
    this is a part of the session's transaction, which the caller commits.
    """
    rows = [vars(delivery) | {"recipients": [*map(vars, delivery.recipients)]} for delivery in deliveries]
    secrets = {} if ignored else event.data.secret_fields()
    run = fast_sql.run_within_session if in_session else fast_sql.run
    recorded = run(
        INSERT_EVENT,
        {
            **shared_limit.count_values(tenant.id, deliveries, routes),
            "id": row_id,
            "external_id": event.id,
            "type": event.event_type.type,
            "occurred_at": event.time,
            "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
            "data": json.dumps(event.data.public_fields()),
            "secrets": RecordedEvent.encrypt_secrets(secrets, tenant.id, row_id),
            "ignored": ignored,
            "warnings": json.dumps([asdict(warning) for warning in event.warnings]),
            "is_sample": event.sample,
            "queue_number": None if ignored or event.sample else event.data.queue,
            "storm_duration": timedelta(minutes=tenant.storm_minutes),
            "storm_limit": tenant.storm_limit,
            "deliveries": _json(rows),
            "throttled": _json([_held_row(row, HoldReason.THROTTLED) for row in rows]),
            "over_limit": _json(
                [_held_row(row, HoldReason.SHARED_SERVER_LIMIT) if row["lease_until"] else row for row in rows]
            ),
        },
    )
    if recorded is None:
        return False
    for delivery in deliveries:
        if recorded["throttled"]:
            hold(delivery, HoldReason.THROTTLED)
        elif recorded["is_over_limit"] and delivery.lease_until:
            hold(delivery, HoldReason.SHARED_SERVER_LIMIT)
    return True


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=str)  # times, and ids


def _held_row(row: Mapping[str, Any], reason: HoldReason) -> dict[str, Any]:
    recipients = [recipient | {"status": Status.HELD, "text": None} for recipient in row["recipients"]]
    held = {"status": Status.HELD, "reason": reason, "recipients": recipients}
    times = dict.fromkeys(("lease_until", "next_attempt_at", "held_until"))
    return {**row, **held, **times, "mail_server_label": None, "attempts": 0}
