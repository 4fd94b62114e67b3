"""The story of an event: what the PBX reported, and what became of each of its mails, step by step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal import reading
from portal.audit import trail
from portal.audit.models import AuditEntry
from portal.deliveries.log import Entry, Mail
from portal.deliveries.mending import MENDABLE
from portal.deliveries.models import Delivery, DeliveryAttempt, RecordedEvent
from portal.deliveries.replies import Reply, replies
from portal.deliveries.states import ENDED, Reason, Status
from portal.extensions import db
from portal.languages import to_translate
from portal.notifications.digest import DIGEST, EVERY_KIND
from portal.notifications.facts import Fact
from portal.notifications.facts import facts as in_words
from portal.notifications.placeholders import Context
from portal.tenants.models import Tenant

DECISIONS = {
    "mail.sent_now": to_translate("Sent now by %(who)s"),
    "mail.sent_again": to_translate("Sent again by %(who)s"),
    "mail.discarded": to_translate("Discarded by %(who)s"),
}
SKEW = timedelta(minutes=1)  # between the clocks of Postgres and of the portal
DIGEST_WITHIN = timedelta(hours=24)  # after the event, also where a worker comes late


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a mail. `kind` is `recorded`, `attempt`, `lost`, `decision` or an ending.

    `after` is how long after the mail was recorded; `who` decided it; `replies` are what a mail server said.
    """

    kind: str
    at: datetime | None
    after: timedelta = timedelta()
    status: str = ""
    number: int = 0
    who: str = ""
    mail_server: str | None = None
    replies: Sequence[Reply] = ()


@dataclass(frozen=True, slots=True)
class MailStory:
    """One mail with its steps, oldest first."""

    mail: Mail
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Story:
    """An event, its mails, and the digest that told of it where its own mails were held for too many at once."""

    entry: Entry
    mails: Sequence[MailStory]
    digest: RecordedEvent | None

    @property
    def waits_for_a_person(self) -> bool:
        """Whether a mail is held that nothing but a person lets go on."""
        return any(told.mail.delivery.reason in {*Reason} - {*MENDABLE} for told in self.mails)

    @property
    def has_secrets(self) -> bool:
        """Whether the event's kind has fields that are not shown."""
        kind = EVERY_KIND.get(self.entry.event.type)
        return bool(kind and kind.fields.secret_names())

    def days(self, zone: str) -> tuple[date, date]:
        """Return the first and the last day that a digest tells of."""
        first, last = (datetime.fromisoformat(self.entry.event.data[name]) for name in ("first_at", "last_at"))
        return first.astimezone(ZoneInfo(zone)).date(), last.astimezone(ZoneInfo(zone)).date()


def of_event(event_id: UUID) -> Story | None:
    """Return the story of an event of the tenant in scope, None where there is no such event."""
    of_mails = selectinload(RecordedEvent.deliveries)
    query = select(RecordedEvent).where(RecordedEvent.id == event_id)
    event = db.session.scalar(
        query.options(of_mails.selectinload(Delivery.recipients), of_mails.selectinload(Delivery.kept_attempts))
    )
    if event is None:
        return None
    entry = Entry.of(event)
    decisions = _decisions(event.deliveries)
    mails = [MailStory(mail, _steps(mail.delivery, decisions)) for mail in entry.mails]
    throttled = any(each.reason == Reason.THROTTLED for each in event.deliveries)
    return Story(entry, mails, _digest(event) if throttled else None)


def facts(event: RecordedEvent, tenant: Tenant) -> Sequence[Fact]:
    """Return what the PBX reported, in the reader's words. Its secrets are not among it."""
    whose = Context(tenant.name, tenant.domain, tenant.time_zone, reading.tag())
    return in_words(event.type, event.data, event.occurred_at, whose)


def _steps(delivery: Delivery, decisions: Sequence[AuditEntry]) -> Sequence[Step]:
    """Return what happened to a mail, in order. Its end is a step too, unless an attempt or a person made it."""
    begin = Step("recorded", delivery.created_at)
    steps = [*_attempts(delivery), *_decided(delivery, decisions)]
    if delivery.status == Status.EXPIRED or any(each.status == Status.EXPIRED for each in delivery.recipients):
        steps.append(Step("expired", delivery.expires_at, delivery.expires_at - delivery.created_at))
    return [begin, *sorted(steps, key=lambda each: each.at or delivery.created_at)]


def _attempts(delivery: Delivery) -> Iterator[Step]:
    kept = {each.number: each for each in delivery.kept_attempts}
    ended = delivery.attempts - (delivery.lease_until is not None)  # the last one is under way
    if ended and ended not in kept and delivery.attempted_at:
        kept[ended] = _last(delivery, ended, delivery.attempted_at)
    missing = ended - len(kept)
    if missing > 0:
        yield Step("lost", None, number=missing)
    for number, each in sorted(kept.items()):
        is_the_last = number == ended and delivery.status in ENDED
        told = replies(each.replies, each.mail_server, is_the_last=is_the_last)
        yield Step("attempt", each.at, each.at - delivery.created_at, "", number, "", each.mail_server, told)


def _last(delivery: Delivery, number: int, at: datetime) -> DeliveryAttempt:
    """Return the last attempt as the mail's own rows tell it: all of one that went well at once."""
    told = [
        {name: getattr(each, name) for name in ("address", "status", "stage", "code", "enhanced_code", "text")}
        for each in delivery.recipients
        if each.stage
    ]
    return DeliveryAttempt(number=number, at=at, mail_server=delivery.mail_server, replies=told)


def _decisions(deliveries: Sequence[Delivery]) -> Sequence[AuditEntry]:
    """Return what people decided while these mails were open, or when they had one sent again."""
    spans = [(each.created_at - SKEW, each.expires_at + SKEW) for each in deliveries]
    return trail.within(deliveries[0].tenant_id, tuple(DECISIONS), spans) if deliveries else ()


def _decided(delivery: Delivery, decisions: Sequence[AuditEntry]) -> Iterator[Step]:
    for entry in decisions:
        if delivery.message_id in _message_ids(entry.changes):
            after = entry.at - delivery.created_at
            yield Step("decision", entry.at, after, status=entry.action, who=entry.actor)


def _message_ids(changes: Mapping[str, Any]) -> Sequence[str]:
    _, ids = changes.get("message_ids", (None, ()))
    return ids or ()


def _digest(event: RecordedEvent) -> RecordedEvent | None:
    """Return the digest that tells of an event that was held because there were too many."""
    data = RecordedEvent.data
    within = (RecordedEvent.id > event.id, RecordedEvent.received_at < event.received_at + DIGEST_WITHIN)
    about = (data["event_type"].astext == event.type, data["queue_number"].astext == event.data.get("queue_number"))
    query = select(RecordedEvent).where(*within, RecordedEvent.type == DIGEST.type, *about)
    return db.session.scalar(query.order_by(RecordedEvent.id).limit(1))
