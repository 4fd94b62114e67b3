"""Recorded events, their emails, and the mail server's reply for each recipient."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Self, TypeAlias
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    and_,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from portal import config, crypto
from portal.database import clock
from portal.database.scope import TenantOrSystemOwned, TenantOwned
from portal.deliveries.status import HoldReason, Status, combine
from portal.extensions import Base
from portal.notifications.settings import Audience

# When an email has to be looked at again: its lease expires because a process died, or it is queued until a time.
DUE_AT = "least(lease_until, next_attempt_at)"
HAS_DUE_TIME = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL)"
# The email is in progress, queued or held.
IS_UNFINISHED = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"


def _secrets_context(tenant_id: int, row_id: UUID) -> str:
    return f"events.secrets:{tenant_id}:{row_id}"


@dataclass
class PendingRecipient:
    """A recipient of an email that is not recorded yet."""

    email: str
    status: str = Status.PENDING
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None


@dataclass
class PendingDelivery:
    """An email that is not recorded yet. It is no SQLAlchemy row, because those take longer to make."""

    id: UUID
    event_id: UUID
    audience: str
    message_id: str
    expires_at: datetime
    recipients: Sequence[PendingRecipient]
    status: str = Status.PENDING
    reason: str | None = None
    mail_server_label: str | None = None
    attempts: int = 0
    lease_until: datetime | None = None
    next_attempt_at: datetime | None = None
    held_until: datetime | None = None

    @classmethod
    def create(
        cls, event_id: UUID, expiry: timedelta, audience: Audience | str, emails: Sequence[str]
    ) -> "PendingDelivery":
        """Return a new email about an event. Its Message-ID contains its id."""
        delivery_id = uuid7()
        message_id = f"<{delivery_id.hex}@{config.current().host}>"
        recipients = [PendingRecipient(email) for email in emails]
        return cls(delivery_id, event_id, audience, message_id, clock.now() + expiry, recipients)


class RecordedEvent(TenantOwned, Base):
    """An event as the PBX reported it. Its secret fields are encrypted, and erased once no email needs them."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("tenant_id", "external_id"),
        UniqueConstraint("tenant_id", "id"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),
        CheckConstraint(
            "ignored_reason IN ('switched_off', 'tenant_suspended', 'no_recipient_wants_it')",
            name="ignored_reason_known",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    external_id: Mapped[str]  # the id that the PBX gave it
    type: Mapped[str]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    fingerprint: Mapped[bytes]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    secrets_encrypted: Mapped[bytes | None] = mapped_column(
        info=crypto.encrypted(lambda row: _secrets_context(row.tenant_id, row.id))
    )
    ignored_reason: Mapped[str | None]
    # What was repaired in it or left out when it was received: the fields of `FieldWarning`.
    warnings: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default=text("'[]'"))
    is_sample: Mapped[bool] = mapped_column(server_default=false())  # someone asked for it: nothing happened
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="event", order_by="Delivery.id")

    @staticmethod
    def encrypt_secrets(secrets: Mapping[str, Any], tenant_id: int, row_id: UUID) -> bytes | None:
        """Return the secret fields encrypted for their row, or None if there are none."""
        return crypto.keyring().encrypt(json.dumps(secrets), _secrets_context(tenant_id, row_id)) if secrets else None

    @property
    def secrets(self) -> dict[str, Any]:
        """The secret fields in clear text, empty if they were erased."""
        if self.secrets_encrypted is None:
            return {}
        decrypted = crypto.keyring().decrypt(self.secrets_encrypted, _secrets_context(self.tenant_id, self.id))
        secrets: dict[str, Any] = json.loads(decrypted)
        return secrets


class Delivery(TenantOwned, Base):
    """A recorded email."""

    __tablename__ = "deliveries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "event_id"], ["events.tenant_id", "events.id"], name="fk_deliveries_event", ondelete="CASCADE"
        ),
        UniqueConstraint("tenant_id", "id"),
        Index("ix_deliveries_event_id", "event_id"),
        Index("ix_deliveries_due", text(DUE_AT), postgresql_where=text(HAS_DUE_TIME)),
        Index("ix_deliveries_tenant_due", "tenant_id", text(DUE_AT), "id", postgresql_where=text(HAS_DUE_TIME)),
        Index(
            "ix_deliveries_last_attempt_at",
            "tenant_id",
            "last_attempt_at",
            postgresql_where=text("last_attempt_at IS NOT NULL"),
        ),
        Index("ix_deliveries_held", "tenant_id", "id", postgresql_where=text("reason IS NOT NULL")),
        Index("ix_deliveries_held_expiry", "expires_at", postgresql_where=text("reason IS NOT NULL")),
        Index("ix_deliveries_held_until", "held_until", postgresql_where=text("held_until IS NOT NULL")),
        Index("ix_deliveries_failed", "last_attempt_at", "tenant_id", postgresql_where=text("status = 'failed'")),
        Index("ix_deliveries_expired", "expires_at", "tenant_id", postgresql_where=text("status = 'expired'")),
        CheckConstraint("audience IN ('recipients', 'user')", name="audience_known"),
        CheckConstraint(
            "status IN ('pending', 'sent', 'partial', 'deferred', 'failed', 'held', 'expired', 'discarded')",
            name="status_known",
        ),
        CheckConstraint(
            "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
            "'switched_off', 'tenant_suspended', 'throttled', 'no_recipient_wants_it', 'shared_server_limit', "
            "'quiet_hours')",
            name="reason_known",
        ),
        CheckConstraint("(status = 'pending') = (lease_until IS NOT NULL)", name="pending_is_leased"),
        CheckConstraint("status <> 'deferred' OR next_attempt_at IS NOT NULL", name="deferred_has_next_attempt"),
        CheckConstraint("next_attempt_at <= expires_at", name="next_attempt_before_expiry"),
        CheckConstraint("status <> 'held' OR reason IS NOT NULL", name="held_has_reason"),
        CheckConstraint("held_until IS NULL OR reason = 'quiet_hours'", name="held_until_is_held"),
        CheckConstraint(
            f"status NOT IN ('sent', 'failed', 'expired', 'discarded') OR NOT {IS_UNFINISHED}",
            name="finished_is_not_open",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[int] = mapped_column()  # the event's
    event_id: Mapped[UUID]
    audience: Mapped[str]
    message_id: Mapped[str]  # contains the id, so it is unique
    status: Mapped[str]
    reason: Mapped[str | None]
    mail_server_label: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    held_until: Mapped[datetime | None]  # the end of quiet hours
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_attempt_at: Mapped[datetime | None]
    event: Mapped[RecordedEvent] = relationship(back_populates="deliveries")
    recipients: Mapped[list["DeliveryRecipient"]] = relationship(
        back_populates="delivery", order_by="DeliveryRecipient.position"
    )
    attempt_rows: Mapped[list["DeliveryAttempt"]] = relationship(order_by="DeliveryAttempt.number", viewonly=True)

    @classmethod
    def from_pending(cls, pending: PendingDelivery, tenant_id: int) -> Self:
        """Return the rows of a new email, which the caller adds to the session."""
        recipients = [
            DeliveryRecipient(tenant_id=tenant_id, email=recipient.email, position=position, status=recipient.status)
            for position, recipient in enumerate(pending.recipients)
        ]
        return cls(**vars(pending) | {"tenant_id": tenant_id, "recipients": recipients})


class DeliveryRecipient(TenantOwned, Base):
    """A recipient of a recorded email."""

    __tablename__ = "delivery_recipients"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["deliveries.tenant_id", "deliveries.id"],
            name="fk_delivery_recipients_delivery",
            ondelete="CASCADE",
        ),
        Index(None, "email", "delivery_id"),
        CheckConstraint(
            "status IN ('pending', 'sent', 'deferred', 'failed', 'held', 'expired', 'discarded')", name="status_known"
        ),
        CheckConstraint("code BETWEEN 200 AND 599", name="code_is_smtp"),
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column()  # the delivery's
    position: Mapped[int]
    status: Mapped[str]
    stage: Mapped[str | None]
    code: Mapped[int | None]
    enhanced_code: Mapped[str | None]
    text: Mapped[str | None]
    delivery: Mapped[Delivery] = relationship(back_populates="recipients")


AnyDelivery: TypeAlias = Delivery | PendingDelivery
AnyRecipient: TypeAlias = DeliveryRecipient | PendingRecipient


def unfinished_recipients(delivery: AnyDelivery) -> Sequence[AnyRecipient]:
    """Return the recipients of an email's next attempt."""
    return [recipient for recipient in delivery.recipients if recipient.status in {Status.PENDING, Status.DEFERRED}]


def hold(delivery: AnyDelivery, reason: HoldReason) -> None:
    """Hold an email for the recipients that it has not reached."""
    _stop(delivery, Status.HELD)
    delivery.reason, delivery.next_attempt_at = reason, None


def hold_until(delivery: AnyDelivery, end: datetime) -> None:
    """Hold an email until its recipients' quiet hours end. It expires later by that time."""
    hold(delivery, HoldReason.QUIET_HOURS)
    delivery.held_until = end
    delivery.expires_at += end - clock.now()


def queue(delivery: AnyDelivery, at: datetime) -> None:
    """Queue an email for an attempt at that time, or let it expire if it expires first."""
    _stop(delivery, Status.DEFERRED)
    delivery.next_attempt_at = min(at, delivery.expires_at)


def _stop(delivery: AnyDelivery, status: Status) -> None:
    for recipient in unfinished_recipients(delivery):
        recipient.status = status
    delivery.status = combine([Status(recipient.status) for recipient in delivery.recipients] or [status])
    delivery.lease_until = delivery.held_until = None


class DeliveryAttempt(TenantOwned, Base):
    """One attempt to deliver an email.

    There is no row if the first attempt was accepted for every recipient: the delivery's own rows say all about it.
    `recipient_results` holds the result of each recipient after the attempt: the fields of `RecipientResult`.
    """

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["deliveries.tenant_id", "deliveries.id"],
            name="fk_delivery_attempts_delivery",
            ondelete="CASCADE",
        ),
        CheckConstraint("number > 0", name="number_is_positive"),
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column()  # the delivery's
    attempted_at: Mapped[datetime]
    mail_server_label: Mapped[str | None]
    recipient_results: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)


class Storm(TenantOwned, Base):
    """How many events of one type came from a queue since `started_at`, and the emails of how many were held."""

    __tablename__ = "storms"
    __table_args__ = (
        Index(None, "ends_at"),
        CheckConstraint("event_count > 0 AND held_count >= 0 AND held_count <= event_count", name="held_within_events"),
        CheckConstraint("ends_at > started_at", name="ends_after_start"),
    )

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    queue_number: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    event_count: Mapped[int]
    held_count: Mapped[int]


class SharedServerUsage(TenantOwned, Base):
    """How many emails a tenant sent through the system's mail server in the current hour and day, by recipient."""

    __tablename__ = "shared_server_usage"

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    hour_started_at: Mapped[datetime]
    hour_count: Mapped[int]
    day_started_at: Mapped[datetime]
    day_count: Mapped[int]


class ReleaseRequest(TenantOrSystemOwned, Base):
    """Settings of a tenant changed, or of the system where `tenant_id` is NULL: workers release the held emails.

    The emails up to `last_id` are released already. If the mail server changed, the queued emails become due too.
    """

    __tablename__ = "release_requests"
    __table_args__ = (Index(None, "tenant_id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    server_changed: Mapped[bool]
    last_id: Mapped[UUID | None]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DailyStats(TenantOwned, Base):
    """The number of a tenant's emails with one status, recorded on a day of its time zone and on a day of UTC."""

    __tablename__ = "daily_stats"
    __table_args__ = (Index(None, "utc_day", "status"), CheckConstraint("count > 0", name="count_is_positive"))

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    utc_day: Mapped[date] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class DailyTotal(Base):
    """The number of emails of all tenants on a day of UTC, by status, and when they were counted."""

    __tablename__ = "daily_totals"

    utc_day: Mapped[date] = mapped_column(primary_key=True)
    counted_at: Mapped[datetime]
    counts: Mapped[dict[str, int]] = mapped_column(JSONB)


def is_due() -> ColumnElement[bool]:
    """Return the condition that a queued email's time has come or a lease has expired, as their index is defined."""
    return and_(text(HAS_DUE_TIME), text(f"{DUE_AT} <= now()"))
