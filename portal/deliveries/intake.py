"""Recording an event, and sending its emails: the event's way from the PBX's request to its result.

The event, its emails and their recipients are written in one statement. Only after that is the content of the emails
built and sent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload
from uuid_utils.compat import uuid4, uuid7

from portal import crypto
from portal.database import clock, fast_sql
from portal.database.fast_sql import Sharing
from portal.database.prepared import Statement
from portal.database.scope import enter_scope
from portal.deliveries import shared_limit
from portal.deliveries.attempt import attempt_delivery
from portal.deliveries.message import build_message, new_token
from portal.deliveries.models import Delivery, PendingDelivery, RecordedEvent
from portal.deliveries.plan import REVISION, Plan
from portal.deliveries.report import EventResult, event_result
from portal.deliveries.schedule import ignore_reason, take_lease
from portal.deliveries.status import HoldReason, Status
from portal.events.event_type import EventData, EventType
from portal.events.parsing import Event, FieldWarning
from portal.extensions import db
from portal.monitoring import logs
from portal.notifications.decision import Decision
from portal.notifications.settings import Audience
from portal.tenants.models import Tenant


class NotRecorded(Enum):
    """Why an event was not recorded."""

    CONFLICT = "conflict"  # the tenant has an event with this id and other content
    PLAN_IS_OLD = "plan_is_old"  # settings have changed since the plan was loaded, or the event is a repeat


def accept_event(plan: Plan, event: Event, *, is_kept: bool = False) -> EventResult | NotRecorded:
    """Record the event of the plan's tenant, send its emails, and return the result.

    An event that is already recorded sends nothing: its current result is returned, or CONFLICT if the content was
    another. A plan that `is_kept` from an earlier event is used only for an event that is new, and if it is not old.
    """
    row_id, event_id = uuid7(), event.id or str(uuid4())
    logs.note_event(row_id)
    if event.id is None:
        event = replace(event, id=event_id)
    deliveries = _new_deliveries(plan, event, row_id)
    ignored = None if deliveries else ignore_reason(plan) or HoldReason.NO_RECIPIENT_WANTS_IT
    for delivery in deliveries:
        if not delivery.held_until:
            take_lease(plan, delivery)
    tokens = [new_token(plan, event, delivery) if delivery.lease_until else None for delivery in deliveries]
    revision = plan.revision if is_kept else None
    statement = _insert_event(plan.tenant, event, row_id, deliveries, ignored=ignored, revision=revision)
    recorded = fast_sql.run(
        *statement,
        then=[token.statement for token in tokens if token],
        scope=str(plan.tenant.id),
        sharing=_sharing(event, deliveries, has_tokens=any(tokens)),
    )
    if recorded is None:
        return NotRecorded.PLAN_IS_OLD if is_kept else _duplicate_result(plan.tenant, event)
    _note_holds(recorded, deliveries)
    messages = [
        build_message(plan, event, delivery, token)
        for delivery, token in zip(deliveries, tokens, strict=True)
        if delivery.lease_until
    ]
    for message in messages:
        attempt_delivery(message)
    return event_result(event_id, deliveries, event.warnings, ignored)


def _duplicate_result(tenant: Tenant, event: Event) -> EventResult | NotRecorded:
    enter_scope(tenant.id)
    # In one statement: between two, an attempt may end, and an email would differ from its recipients.
    emails = joinedload(RecordedEvent.deliveries).joinedload(Delivery.recipients)
    query = select(RecordedEvent).where(RecordedEvent.external_id == event.id).options(emails)
    row = db.session.scalars(query).unique().one()
    if not crypto.keyring().has_fingerprint(event.canonical.encode(), row.fingerprint):
        return NotRecorded.CONFLICT
    warnings = tuple(FieldWarning(**warning) for warning in row.warnings)
    ignored = HoldReason(row.ignored_reason) if row.ignored_reason else None
    return event_result(row.external_id, row.deliveries, warnings, ignored, duplicate=True)


def _new_deliveries(plan: Plan, event: Event, row_id: UUID) -> Sequence[PendingDelivery]:
    """Return the emails about an event, none if it is ignored.

    The new user gets an email of their own, which names nobody else. Recipients in quiet hours get one of their own,
    which is held until these end. If the tenant has recipients but none of them gets this event, there is no email to
    them. If it has no recipients at all, the email waits for some.
    """
    if ignore_reason(plan):
        return []
    user_email, audience = event.data.user_email, plan.setting.audience
    deliveries = []
    if audience is not Audience.USER:
        decision = plan.decide(event.event_type.type, event.data.queue_names)
        deliveries = _deliveries_to_recipients(row_id, event.expiry, decision, even_if_empty=not plan.has_recipients)
    if audience is Audience.USER or (audience is Audience.BOTH and user_email):
        emails = [user_email] if user_email else []
        deliveries.append(PendingDelivery.create(row_id, event.expiry, Audience.USER, emails))
    return deliveries


def _deliveries_to_recipients(
    event_id: UUID, expiry: timedelta, decision: Decision, *, even_if_empty: bool
) -> list[PendingDelivery]:
    """Return the emails: one to send now, if anyone gets it now, and one for each end of quiet hours."""
    deliveries = []
    if decision.now or even_if_empty:
        deliveries.append(PendingDelivery.create(event_id, expiry, Audience.RECIPIENTS, decision.now))
    for end, emails in decision.quiet.items():
        deliveries.append(PendingDelivery.create(event_id, expiry, Audience.RECIPIENTS, emails))
        deliveries[-1].hold_until(end)
    return deliveries


# The parts of the statement that records an event: the event, its storm, what it counts for the limits of the system's
# mail server, its emails and their recipients. If the event is already recorded, or the plan is old, nothing is
# inserted. A storm whose time is over and that held nothing is replaced by a new one. Otherwise it continues until its
# digest is written.
INSERT_EVENT: Final = f"""
    WITH event AS (
        INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data, secrets_encrypted,
            ignored_reason, warnings, is_sample)
        SELECT %(id)s::uuid, %(tenant_id)s::int, %(external_id)s, %(type)s, %(occurred_at)s, %(fingerprint)s::bytea,
            %(data)s::jsonb, %(secrets)s::bytea, %(ignored)s::text, %(warnings)s::jsonb, %(is_sample)s
        WHERE %(revision)s::bigint IS NULL OR %(revision)s::bigint = {REVISION.format(tenant_id="%(tenant_id)s::int")}
        ON CONFLICT ON CONSTRAINT uq_events_tenant_id_external_id DO NOTHING
        RETURNING id
    )"""
COUNT_EVENT: Final = """, storm AS (
        INSERT INTO storms (tenant_id, event_type, queue_number, started_at, ends_at, event_count, held_count)
        SELECT %(tenant_id)s::int, %(type)s, %(queue_number)s, now(), now() + %(storm_duration)s, 1, 0 FROM event
        ON CONFLICT ON CONSTRAINT pk_storms DO UPDATE SET (started_at, ends_at, event_count, held_count) = (
            SELECT CASE WHEN over THEN now() ELSE storms.started_at END,
                CASE WHEN over THEN excluded.ends_at ELSE storms.ends_at END,
                count, CASE WHEN over THEN 0 ELSE storms.held_count END + (count > %(storm_limit)s::int)::int
            FROM (SELECT storms.ends_at <= now() AND storms.held_count = 0) AS state (over),
                LATERAL (SELECT CASE WHEN over THEN 1 ELSE storms.event_count + 1 END) AS counted (count)
        )
        RETURNING event_count > %(storm_limit)s::int AS throttled
    )"""
COUNT_EMAILS: Final = f""", usage AS (
        {shared_limit.COUNT.format(rows="(SELECT FROM {source} WHERE NOT {throttled}) AS unthrottled")}
    ), recorded AS (
        SELECT {{throttled}} AS throttled, coalesce(usage.is_over, false) AS is_over_limit
        FROM {{source}} LEFT JOIN usage ON true
    )"""  # noqa: S608 (contains no input)
INSERT_EMAILS: Final = f""", delivery AS (
        INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, mail_server_label,
            attempts, lease_until, next_attempt_at, held_until, expires_at)
        SELECT email.id, %(tenant_id)s::int, %(id)s::uuid, audience, message_id,
            CASE WHEN {{is_held}} THEN '{Status.HELD}' ELSE status END, CASE WHEN {{throttled}} THEN
            '{HoldReason.THROTTLED}' WHEN {{is_held}} THEN '{HoldReason.SHARED_SERVER_LIMIT}' ELSE reason END,
            CASE WHEN NOT {{is_held}} THEN mail_server_label END, CASE WHEN {{is_held}} THEN 0 ELSE attempts END,
            CASE WHEN NOT {{is_held}} THEN lease_until END, CASE WHEN NOT {{is_held}} THEN next_attempt_at END,
            CASE WHEN NOT {{is_held}} THEN held_until END, expires_at
        FROM {{source}}, {{emails}}
    ), recipient AS (
        INSERT INTO delivery_recipients (delivery_id, tenant_id, email, position, status, text)
        SELECT email.id, %(tenant_id)s::int, address, position - 1,
            CASE WHEN {{is_held}} THEN '{Status.HELD}' ELSE status END, CASE WHEN NOT {{is_held}} THEN text END
        FROM {{source}}, {{emails}}, unnest(emails) WITH ORDINALITY AS recipient (address, position)
    )"""  # noqa: S608 (contains no input)
EMAIL_COLUMNS: Final = """id uuid, audience text, message_id text, status text, reason text, mail_server_label text,
    attempts int, lease_until timestamptz, next_attempt_at timestamptz, held_until timestamptz, expires_at timestamptz,
    emails text[], text text"""
_columns_of = attrgetter(*(column.split()[0] for column in EMAIL_COLUMNS.split(",")[:-2]))


@cache
def _insert_event_sql(emails: int, *, has_queue: bool, is_counted: bool) -> str:
    """Return the statement for that many emails. Constants in it cost Postgres nothing when it runs."""
    throttled, is_over, source = ("throttled", "false", "storm") if has_queue else ("false", "false", "event")
    parts = [INSERT_EVENT, COUNT_EVENT] if has_queue else [INSERT_EVENT]
    if is_counted:
        parts.append(COUNT_EMAILS.format(source=source, throttled=throttled))
        throttled, is_over, source = "throttled", "is_over_limit", "recorded"
    if emails:
        is_held = f"({throttled} OR {is_over} AND lease_until IS NOT NULL)"
        rows = fast_sql.rows("email", EMAIL_COLUMNS, emails)
        parts.append(INSERT_EMAILS.format(source=source, throttled=throttled, is_held=is_held, emails=rows))
    return f"{''.join(parts)} SELECT {throttled} AS throttled, {is_over} AS is_over_limit FROM {source}"  # noqa: S608


def record_own_event(
    tenant: Tenant, event_type: EventType, data: EventData, decision: Decision, *, even_if_empty: bool = False
) -> bool:
    """Write an event of the portal's own and its emails, which workers send, within the session's transaction.

    Return whether there are any emails. Without, nothing is written.
    """
    row_id, now = uuid7(), clock.now()
    deliveries = _deliveries_to_recipients(row_id, event_type.expiry, decision, even_if_empty=even_if_empty)
    for delivery in deliveries:
        if not delivery.held_until:
            delivery.queue(now)
    if deliveries:
        event = Event(str(uuid4()), event_type, None, now, data, canonical=data.model_dump_json())
        fast_sql.run_within_session(*_insert_event(tenant, event, row_id, deliveries))
    return bool(deliveries)


def _insert_event(
    tenant: Tenant,
    event: Event,
    row_id: UUID,
    deliveries: Sequence[PendingDelivery],
    *,
    ignored: HoldReason | None = None,
    revision: int | None = None,
) -> Statement:
    """Return the statement that writes the event and its emails.

    The emails are held if a storm throttles them, or if the tenant has reached a limit of the shared mail server.
    `ignored` says why there are no emails. Nothing is written if the settings have a newer `revision`.
    """
    secrets = {} if ignored else event.data.secret_fields()
    queue = None if ignored or event.sample else event.data.queue
    values = {
        **shared_limit.count_values(tenant.id, deliveries),
        "revision": revision,
        "id": row_id,
        "external_id": event.id,
        "type": event.event_type.type,
        "occurred_at": event.time,
        "fingerprint": crypto.keyring().fingerprint(event.canonical.encode()),
        "data": event.data.public_json(),
        "secrets": RecordedEvent.encrypt_secrets(secrets, tenant.id, row_id),
        "ignored": ignored,
        "warnings": json.dumps([asdict(warning) for warning in event.warnings]) if event.warnings else "[]",
        "is_sample": event.sample,
        "queue_number": queue,
        "storm_duration": timedelta(minutes=tenant.storm_minutes),
        "storm_limit": tenant.storm_limit,
        **fast_sql.row_values("email", EMAIL_COLUMNS, map(_email_row, deliveries)),
    }
    is_counted = bool(values["shared_emails"])
    return _insert_event_sql(len(deliveries), has_queue=queue is not None, is_counted=is_counted), values


def _sharing(event: Event, deliveries: Sequence[PendingDelivery], *, has_tokens: bool) -> Sharing | None:
    """Return how the statement shares a transaction: the order is that in which it locks the storms of queues.

    It shares none if it locks other rows that several events need: the tokens of a SIP account, or what the tenant has
    sent through the shared mail server.
    """
    if has_tokens or any(delivery.uses_shared_server for delivery in deliveries):
        return None
    return Sharing(order=(event.event_type.type, event.data.queue or "", event.id or ""))


def _note_holds(recorded: Mapping[str, Any], deliveries: Sequence[PendingDelivery]) -> None:
    """Hold the emails that the statement held."""
    for delivery in deliveries:
        if recorded["throttled"]:
            delivery.hold(HoldReason.THROTTLED)
        elif recorded["is_over_limit"] and delivery.lease_until:
            delivery.hold(HoldReason.SHARED_SERVER_LIMIT)


def _email_row(delivery: PendingDelivery) -> Iterable[Any]:
    """Return a new email, whose recipients all have its status and the same text."""
    recipients = delivery.recipients
    text = recipients[0].text if recipients else None
    return *_columns_of(delivery), [it.email for it in recipients], text
