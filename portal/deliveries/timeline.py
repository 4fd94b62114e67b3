"""The timeline of an event: what the PBX reported, and what happened to each of its emails, step by step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal.audit import queries
from portal.audit.models import AuditEntry
from portal.deliveries.attempt import STATUS_BY_REPLY
from portal.deliveries.delivery_log import LogEntry, LoggedDelivery
from portal.deliveries.models import Delivery, DeliveryAttempt, DeliveryRecipient, RecordedEvent, stored_result
from portal.deliveries.release import RELEASABLE_REASONS
from portal.deliveries.status import NOT_SENT, HoldReason, Status
from portal.events.storm_digest import ALL_EVENT_TYPES, DIGEST
from portal.extensions import db
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpReply, Stage, advice_for
from portal.web.i18n import to_translate

ACTIONS: Final = {
    "mail.sent_now": to_translate("Sent now by %(who)s"),
    "mail.sent_again": to_translate("Sent again by %(who)s"),
    "mail.discarded": to_translate("Discarded by %(who)s"),
}
STAGES: Final = {
    Stage.TOKEN: to_translate("while getting an access token"),
    Stage.NAME: to_translate("while looking up the mail server"),
    Stage.CONNECT: to_translate("while connecting"),
    Stage.TLS: to_translate("while setting up encryption"),
    Stage.GREETING: to_translate("while greeting the mail server"),
    Stage.EHLO: to_translate("while greeting the mail server"),
    Stage.AUTH: to_translate("while signing in"),
    Stage.MAIL: to_translate("while naming the sender"),
    Stage.RCPT: to_translate("while naming the recipient"),
    Stage.DATA: to_translate("while sending the message"),
}
REPLY_KINDS: Final = {status: kind for kind, status in reversed(STATUS_BY_REPLY.items())}  # deferred: temporary
REPLY_FIELDS: Final = ("status", "stage", "code", "enhanced_code", "text")
MAX_CLOCK_SKEW: Final = timedelta(minutes=1)  # between Postgres and the portal
MAX_DIGEST_DELAY: Final = timedelta(hours=24)  # after the event, even if the workers are late


@dataclass(frozen=True, slots=True)
class ExplainedReply:
    """One reply of the mail server, for the recipients that got the same one.

    `stage` says at which point of the SMTP session it came, and `advice` what to do about it.
    """

    recipients: Sequence[str]
    status: str
    stage: str
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """Something that happened to an email. `kind` is `recorded`, `attempt`, `unrecorded_attempts`, `action`, `expired`.

    `elapsed` is the time since the email was recorded. `action` is a person's action, and `actor` the person.
    """

    kind: str
    at: datetime | None
    elapsed: timedelta = timedelta()
    number: int = 0
    action: str = ""
    actor: str = ""
    mail_server_label: str | None = None
    replies: Sequence[ExplainedReply] = ()


@dataclass(frozen=True, slots=True)
class EventTimeline:
    """An event, its emails with their steps, oldest first, and the digest that lists it if a storm throttled them."""

    entry: LogEntry
    deliveries: Sequence[tuple[LoggedDelivery, Sequence[TimelineStep]]]
    digest: RecordedEvent | None

    @property
    def needs_decision(self) -> bool:
        """Whether an email is held until a person decides about it."""
        decided_by_person = {*HoldReason} - {*RELEASABLE_REASONS, HoldReason.QUIET_HOURS}
        return any(logged.delivery.reason in decided_by_person for logged, _ in self.deliveries)

    @property
    def is_quiet(self) -> bool:
        """Whether an email is held until quiet hours end."""
        return any(logged.delivery.held_until for logged, _ in self.deliveries)

    @property
    def has_secrets(self) -> bool:
        """Whether this type of event has fields that are not shown."""
        event_type = ALL_EVENT_TYPES.get(self.entry.event.type)
        return bool(event_type and event_type.fields.secret_names())

    def digest_days(self, time_zone: str) -> tuple[date, date]:
        """Return the first and the last day of the events that this digest lists."""
        first, last = (datetime.fromisoformat(self.entry.event.data[name]) for name in ("first_at", "last_at"))
        return first.astimezone(ZoneInfo(time_zone)).date(), last.astimezone(ZoneInfo(time_zone)).date()


def event_timeline(event_id: UUID) -> EventTimeline | None:
    """Return the timeline of an event of the tenant in scope, or None if there is no such event."""
    deliveries = selectinload(RecordedEvent.deliveries)
    query = select(RecordedEvent).where(RecordedEvent.id == event_id)
    event = db.session.scalar(
        query.options(deliveries.selectinload(Delivery.recipients), deliveries.selectinload(Delivery.attempt_rows))
    )
    if event is None:
        return None
    # What people did with these emails, from the audit log.
    spans = [(email.created_at - MAX_CLOCK_SKEW, email.expires_at + MAX_CLOCK_SKEW) for email in event.deliveries]
    actions = queries.in_time_spans(event.tenant_id, tuple(ACTIONS), spans) if spans else ()
    entry = LogEntry(event)
    timelines = [(logged, _steps(logged.delivery, actions)) for logged in entry.deliveries]
    is_throttled = any(delivery.reason == HoldReason.THROTTLED for delivery in event.deliveries)
    return EventTimeline(entry, timelines, _find_digest(event) if is_throttled else None)


def _steps(delivery: Delivery, actions: Sequence[AuditEntry]) -> Sequence[TimelineStep]:
    """Return the steps of an email, oldest first."""
    steps = [*_attempt_steps(delivery), *_action_steps(delivery, actions)]
    if Status.EXPIRED in {delivery.status, *(recipient.status for recipient in delivery.recipients)}:
        steps.append(TimelineStep("expired", delivery.expires_at, delivery.expires_at - delivery.created_at))
    steps.sort(key=lambda step: step.at or delivery.created_at)
    return [TimelineStep("recorded", delivery.created_at), *steps]


def _attempt_steps(delivery: Delivery) -> Iterator[TimelineStep]:
    attempts = {attempt.number: attempt for attempt in delivery.attempt_rows}
    finished = delivery.attempts - (delivery.lease_until is not None)  # the last one is in progress
    if finished and finished not in attempts and delivery.last_attempt_at:
        attempts[finished] = _last_attempt(delivery, finished, delivery.last_attempt_at)
    unrecorded = finished - len(attempts)
    if unrecorded > 0:
        yield TimelineStep("unrecorded_attempts", None, number=unrecorded)
    for number, attempt in sorted(attempts.items()):
        will_retry = number != finished or delivery.status not in NOT_SENT
        yield TimelineStep(
            "attempt",
            attempt.attempted_at,
            attempt.attempted_at - delivery.created_at,
            number=number,
            mail_server_label=attempt.mail_server_label,
            replies=_explained_replies(attempt, will_retry=will_retry),
        )


def _last_attempt(delivery: Delivery, number: int, attempted_at: datetime) -> DeliveryAttempt:
    """Return the last attempt as the delivery's own rows have it: see `DeliveryAttempt`."""
    results = [stored_result(recipient) for recipient in delivery.recipients if recipient.stage]
    label = delivery.mail_server_label
    return DeliveryAttempt(number=number, attempted_at=attempted_at, mail_server_label=label, recipient_results=results)


def _action_steps(delivery: Delivery, actions: Sequence[AuditEntry]) -> Iterator[TimelineStep]:
    for entry in actions:
        _, message_ids = entry.changes.get("message_ids", (None, ()))
        if delivery.message_id in (message_ids or ()):
            elapsed = entry.created_at - delivery.created_at
            yield TimelineStep("action", entry.created_at, elapsed, action=entry.action, actor=entry.actor)


def _find_digest(event: RecordedEvent) -> RecordedEvent | None:
    """Return the digest that lists a throttled event."""
    data = RecordedEvent.data
    is_in_time = (RecordedEvent.id > event.id, RecordedEvent.received_at < event.received_at + MAX_DIGEST_DELAY)
    is_same = (data["event_type"].astext == event.type, data["queue_number"].astext == event.data.get("queue_number"))
    query = select(RecordedEvent).where(*is_in_time, RecordedEvent.type == DIGEST.type, *is_same)
    return db.session.scalar(query.order_by(RecordedEvent.id).limit(1))


def _explained_replies(attempt: DeliveryAttempt, *, will_retry: bool) -> Sequence[ExplainedReply]:
    """Return the replies of an attempt, with one entry for neighbouring recipients that got the same reply."""
    replies = []
    for _, group in groupby(attempt.recipient_results, itemgetter(*REPLY_FIELDS)):
        results = list(group)
        reply, emails = _stored_reply(results[0]), [result["address"] for result in results]
        advice = _advice(reply, attempt.mail_server_label, will_retry=will_retry)
        replies.append(ExplainedReply(emails, results[0]["status"], gettext(STAGES[reply.stage]), reply.line, advice))
    return replies


def explain_reply(recipient: DeliveryRecipient, mail_server_label: str | None) -> str:
    """Return what to do about the last reply about a recipient, empty if there is nothing to do."""
    if recipient.stage is None:
        return ""
    return _advice(_stored_reply(stored_result(recipient)), mail_server_label)


def _advice(reply: SmtpReply, mail_server_label: str | None, *, will_retry: bool = True) -> str:
    if reply.kind is ReplyKind.ACCEPTED:
        return ""
    host, _, port = (mail_server_label or "").rpartition(":")
    known_port = int(port) if port.isdecimal() else None
    return gettext(advice_for(reply, known_port, host=host, will_retry=will_retry))


def _stored_reply(result: Mapping[str, Any]) -> SmtpReply:
    """Return the reply in a `stored_result`."""
    status, stage, code = result["status"], result["stage"], result["code"]
    kind = REPLY_KINDS.get(Status(status), ReplyKind.TEMPORARY)
    if stage == Stage.DATA and code is None and status in {Status.DEFERRED, Status.HELD}:
        kind = ReplyKind.UNKNOWN  # no reply to the final dot
    return SmtpReply(kind, Stage(stage), code, result["enhanced_code"], result["text"] or "")
