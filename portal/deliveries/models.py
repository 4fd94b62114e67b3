"""Recorded events, the mails they became, and what a mail server said to each recipient."""

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
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

from portal import crypto
from portal.database import TenantOwned
from portal.deliveries.mail import Mail, NewMail, Recipient
from portal.extensions import Base

# Its time comes, or its lease runs out because a process died: a mail has one of both, or waits for nothing.
DUE_AT = "least(lease_until, next_attempt_at)"
WAITS = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL)"
# Something may still happen to a mail.
STILL_OPEN = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"


def _secrets_place(tenant_id: int, row_id: UUID) -> str:
    return f"events.secrets:{tenant_id}:{row_id}"


class RecordedEvent(TenantOwned, Base):
    """An event as the PBX reported it. Its secret fields stand encrypted, and only while they are needed."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("tenant_id", "event_id"),
        UniqueConstraint("tenant_id", "id"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),
        CheckConstraint(
            "ignored_reason IN ('switched_off', 'tenant_suspended', 'no_recipient_wants_it')",
            name="ignored_reason_known",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    event_id: Mapped[str]
    type: Mapped[str]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    fingerprint: Mapped[bytes]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    secrets_encrypted: Mapped[bytes | None] = mapped_column(
        info=crypto.encrypted(lambda row: _secrets_place(row.tenant_id, row.id))
    )
    ignored_reason: Mapped[str | None]
    sample: Mapped[bool] = mapped_column(server_default=false())  # nothing happened: somebody asked for it
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="event", order_by="Delivery.id")

    @staticmethod
    def seal(secrets: Mapping[str, Any], tenant_id: int, row_id: UUID) -> bytes | None:
        """Return the secret fields encrypted for their row, None where there are none."""
        return crypto.keyring().encrypt(json.dumps(secrets), _secrets_place(tenant_id, row_id)) if secrets else None

    @property
    def secrets(self) -> dict[str, Any]:
        """The secret fields, none where they were erased."""
        if self.secrets_encrypted is None:
            return {}
        place = _secrets_place(self.tenant_id, self.id)
        opened: dict[str, Any] = json.loads(crypto.keyring().decrypt(self.secrets_encrypted, place))
        return opened


class Delivery(Mail, TenantOwned, Base):
    """A mail that is recorded."""

    __tablename__ = "deliveries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "event_id"], ["events.tenant_id", "events.id"], name="fk_deliveries_event", ondelete="CASCADE"
        ),
        UniqueConstraint("tenant_id", "id"),
        Index("ix_deliveries_event_id", "event_id"),
        Index("ix_deliveries_due", text(DUE_AT), postgresql_where=text(WAITS)),
        Index(
            "ix_deliveries_attempted", "tenant_id", "attempted_at", postgresql_where=text("attempted_at IS NOT NULL")
        ),
        Index("ix_deliveries_held", "tenant_id", "id", postgresql_where=text("reason IS NOT NULL")),
        Index("ix_deliveries_held_until", "expires_at", postgresql_where=text("reason IS NOT NULL")),
        Index("ix_deliveries_failed", "attempted_at", "tenant_id", postgresql_where=text("status = 'failed'")),
        Index("ix_deliveries_expired", "expires_at", "tenant_id", postgresql_where=text("status = 'expired'")),
        CheckConstraint("audience IN ('recipients', 'user')", name="audience_known"),
        CheckConstraint(
            "status IN ('pending', 'sent', 'partial', 'deferred', 'failed', 'held', 'expired', 'discarded')",
            name="status_known",
        ),
        CheckConstraint(
            "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
            "'switched_off', 'tenant_suspended', 'throttled', 'no_recipient_wants_it')",
            name="reason_known",
        ),
        CheckConstraint("(status = 'pending') = (lease_until IS NOT NULL)", name="pending_is_leased"),
        CheckConstraint("status <> 'deferred' OR next_attempt_at IS NOT NULL", name="deferred_has_a_time"),
        CheckConstraint("next_attempt_at <= expires_at", name="waits_no_longer_than_it_lives"),
        CheckConstraint("status <> 'held' OR reason IS NOT NULL", name="held_has_a_reason"),
        CheckConstraint(
            f"status NOT IN ('sent', 'failed', 'expired', 'discarded') OR NOT {STILL_OPEN}",
            name="finished_is_not_open",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[int] = mapped_column()  # the event's, which has one for certain
    event_id: Mapped[UUID]
    audience: Mapped[str]
    message_id: Mapped[str]  # made of the id, and so as unique
    status: Mapped[str]
    reason: Mapped[str | None]
    mail_server: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempted_at: Mapped[datetime | None]
    event: Mapped[RecordedEvent] = relationship(back_populates="deliveries")
    recipients: Mapped[list["DeliveryRecipient"]] = relationship(
        back_populates="delivery", order_by="DeliveryRecipient.position"
    )
    kept_attempts: Mapped[list["DeliveryAttempt"]] = relationship(order_by="DeliveryAttempt.number", viewonly=True)

    @classmethod
    def of(cls, new: NewMail, tenant_id: int) -> Self:
        """Return the rows of a mail that is yet to be recorded, added to nothing."""
        recipients = [
            DeliveryRecipient(tenant_id=tenant_id, address=each.address, position=position, status=each.status)
            for position, each in enumerate(new.recipients)
        ]
        return cls(**vars(new) | {"tenant_id": tenant_id, "recipients": recipients})


class DeliveryRecipient(Recipient, TenantOwned, Base):
    """A recipient of a mail that is recorded."""

    __tablename__ = "delivery_recipients"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["deliveries.tenant_id", "deliveries.id"],
            name="fk_delivery_recipients_delivery",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "status IN ('pending', 'sent', 'deferred', 'failed', 'held', 'expired', 'discarded')", name="status_known"
        ),
        CheckConstraint("code BETWEEN 200 AND 599", name="code_is_smtp"),
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column()  # the mail's
    position: Mapped[int]
    status: Mapped[str]
    stage: Mapped[str | None]
    code: Mapped[int | None]
    enhanced_code: Mapped[str | None]
    text: Mapped[str | None]
    delivery: Mapped[Delivery] = relationship(back_populates="recipients")


class DeliveryAttempt(TenantOwned, Base):
    """One attempt at a mail that was not accepted by all at its first: the rows of the others tell theirs.

    `replies` holds for each recipient that was tried the fields of its `DeliveryRecipient` as they were then.
    """

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["deliveries.tenant_id", "deliveries.id"],
            name="fk_delivery_attempts_delivery",
            ondelete="CASCADE",
        ),
        CheckConstraint("number > 0", name="number_counts"),
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column()  # the mail's
    at: Mapped[datetime]
    mail_server: Mapped[str | None]
    replies: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)


class Storm(TenantOwned, Base):
    """How many events of a kind came from a queue since `started_at`, and how many of them were held."""

    __tablename__ = "storms"
    __table_args__ = (
        Index(None, "ends_at"),
        CheckConstraint("events > 0 AND held >= 0 AND held <= events", name="counts_add_up"),
        CheckConstraint("ends_at > started_at", name="ends_later"),
    )

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    events: Mapped[int]
    held: Mapped[int]


class Tally(TenantOwned, Base):
    """How many of a tenant's mails with one status came on a day of its time zone, and within which day of UTC."""

    __tablename__ = "tallies"
    __table_args__ = (
        Index(None, "tallied_day", "status"),
        CheckConstraint("count > 0", name="count_is_positive"),
    )

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    tallied_day: Mapped[date] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class TalliedDay(Base):
    """A day of UTC whose mails were counted, when that was, and how many there were of all tenants, by status."""

    __tablename__ = "tallied_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    counted_at: Mapped[datetime]
    counts: Mapped[dict[str, int]] = mapped_column(JSONB)


def is_due() -> ColumnElement[bool]:
    """Return the condition that a mail's time has come, or its lease ran out: in the words of the index of both."""
    return and_(text(WAITS), text(f"{DUE_AT} <= now()"))
