"""Recorded events, their emails, and the mail server's reply for each recipient."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any
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
from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.database import clock
from portal.database.domain import Domain
from portal.database.scope import TenantOrSystemOwned, TenantOwned
from portal.deliveries.status import HoldReason, Status, combine
from portal.extensions import Base
from portal.notifications.settings import Audience

# When an email has to be looked at again: its lease expires because a process died, or it is queued until a time.
DUE_AT = "least(lease_until, next_attempt_at)"
HAS_DUE_TIME = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL)"
# For an email that is looked up by its id. `IS NOT NULL` would allow Postgres to use an index of the emails that have a
# due time. Statistics call that index nearly empty, but until the next VACUUM it has an entry of every email that was
# sent, and Postgres would read all of them.
IS_LEASED = "coalesce(lease_until, '-infinity') > '-infinity'"
HOLD_REASON, DELIVERY_STATUS = Domain("hold_reason"), Domain("delivery_status")
# When the time of a held email is over: the quiet hours end, which is before it expires, or it expires.
HOLD_END = "least(held_until, expires_at)"
IS_HELD = "reason IS NOT NULL"
HELD_SINCE = "coalesce(last_attempt_at, created_at)"
# The email is in progress, queued or held.
IS_UNFINISHED = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"


def _secrets_context(tenant_id: int, row_id: UUID) -> str:
    return f"events.secrets:{tenant_id}:{row_id}"


@dataclass
class PendingRecipient:
    """A recipient of an email, and the last reply about it."""

    email: str
    status: Status = Status.PENDING
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None


@dataclass
class PendingDelivery:
    """An email until its attempt has ended. It is no SQLAlchemy row, because those take longer to make."""

    id: UUID
    event_id: UUID
    audience: str
    message_id: str
    expires_at: datetime
    recipients: Sequence[PendingRecipient]
    status: Status = Status.PENDING
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

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "PendingDelivery":
        """Return an email from a row with its columns, and its recipients as JSON."""
        recipients = [
            PendingRecipient(**recipient | {"status": Status(recipient["status"])})
            for recipient in row["recipients"] or ()
        ]
        columns = {field.name: row[field.name] for field in fields(cls)}
        return cls(**columns | {"status": Status(row["status"]), "recipients": recipients})

    @property
    def unfinished(self) -> Sequence[PendingRecipient]:
        """The recipients of its next attempt."""
        return [recipient for recipient in self.recipients if recipient.status in {Status.PENDING, Status.DEFERRED}]

    @property
    def uses_shared_server(self) -> bool:
        """Whether its attempt is made through the system's mail server."""
        return self.mail_server_label == SYSTEM_MAIL_SERVER

    def hold(self, reason: HoldReason) -> None:
        """Hold it for the recipients that it has not reached."""
        self._stop(Status.HELD)
        self.reason, self.next_attempt_at = reason, None

    def hold_until(self, end: datetime) -> None:
        """Hold it until its recipients' quiet hours end. It expires later by that time."""
        self.hold(HoldReason.QUIET_HOURS)
        self.held_until = end
        self.expires_at += end - clock.now()

    def queue(self, at: datetime) -> None:
        """Queue it for an attempt at that time, or let it expire if it expires first."""
        self._stop(Status.DEFERRED)
        self.next_attempt_at = min(at, self.expires_at)

    def _stop(self, status: Status) -> None:
        for recipient in self.unfinished:
            recipient.status = status
        self.status = combine([recipient.status for recipient in self.recipients] or [status])
        self.lease_until = self.held_until = None


class RecordedEvent(TenantOwned, Base):
    """An event as the PBX reported it. Its secret fields are encrypted, and erased once no email needs them."""

    __tablename__ = "events"
    __table_args__ = (
        # The ID first: its index finds an event of any tenant.
        UniqueConstraint("external_id", "tenant_id", name="uq_events_tenant_id_external_id"),
        UniqueConstraint("tenant_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    external_id: Mapped[str]  # the id that the PBX gave it
    type: Mapped[str]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    fingerprint: Mapped[bytes] = mapped_column(Domain("sha256_digest"))
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    secrets_encrypted: Mapped[bytes | None] = mapped_column(
        info=crypto.encrypted(lambda row: _secrets_context(row.tenant_id, row.id))
    )
    ignored_reason: Mapped[str | None] = mapped_column(HOLD_REASON)
    # What was repaired in it or left out when it was received: the fields of `FieldWarning`.
    warnings: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default=text("'[]'"))
    is_sample: Mapped[bool] = mapped_column(server_default=false())  # someone asked for it: nothing happened
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="event", order_by="Delivery.id")

    @staticmethod
    def encrypt_secrets(secrets: Mapping[str, Any], tenant_id: int, row_id: UUID) -> bytes | None:
        """Return the secret fields encrypted for their row, or None if there are none."""
        return crypto.keyring().encrypt(json.dumps(secrets), _secrets_context(tenant_id, row_id)) if secrets else None

    @staticmethod
    def decrypt_secrets(encrypted: bytes | None, tenant_id: int, row_id: UUID) -> dict[str, Any]:
        """Return the secret fields in clear text, empty if they were erased."""
        if encrypted is None:
            return {}
        secrets: dict[str, Any] = json.loads(crypto.keyring().decrypt(encrypted, _secrets_context(tenant_id, row_id)))
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
        Index("ix_deliveries_held", "tenant_id", "id", postgresql_where=text(IS_HELD)),
        Index("ix_deliveries_held_since", "tenant_id", "reason", text(HELD_SINCE), postgresql_where=text(IS_HELD)),
        Index("ix_deliveries_hold_end", text(HOLD_END), postgresql_where=text(IS_HELD)),
        Index("ix_deliveries_failed", "last_attempt_at", "tenant_id", postgresql_where=text("status = 'failed'")),
        Index("ix_deliveries_expired", "expires_at", "tenant_id", postgresql_where=text("status = 'expired'")),
        CheckConstraint(
            "is_delivery_state(status, reason, lease_until, next_attempt_at, held_until, expires_at)",
            name="state_is_consistent",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[int] = mapped_column()  # the event's
    event_id: Mapped[UUID]
    audience: Mapped[str] = mapped_column(Domain("delivery_audience"))
    message_id: Mapped[str]  # contains the id, so it is unique
    status: Mapped[str] = mapped_column(DELIVERY_STATUS)
    reason: Mapped[str | None] = mapped_column(HOLD_REASON)
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


def _reference_to_delivery(name: str) -> ForeignKeyConstraint:
    columns, referenced = ("tenant_id", "delivery_id"), ("deliveries.tenant_id", "deliveries.id")
    return ForeignKeyConstraint(columns, referenced, name=name, ondelete="CASCADE")


class DeliveryRecipient(TenantOwned, Base):
    """A recipient of a recorded email."""

    __tablename__ = "delivery_recipients"
    __table_args__ = (
        _reference_to_delivery("fk_delivery_recipients_delivery"),
        Index(None, "email", "delivery_id"),
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column()  # the delivery's
    position: Mapped[int]
    status: Mapped[str] = mapped_column(DELIVERY_STATUS)
    stage: Mapped[str | None]
    code: Mapped[int | None] = mapped_column(Domain("smtp_code"))
    enhanced_code: Mapped[str | None]
    text: Mapped[str | None]
    delivery: Mapped[Delivery] = relationship(back_populates="recipients")


def stored_result(recipient: PendingRecipient | DeliveryRecipient) -> dict[str, Any]:
    """Return the result for a recipient as `DeliveryAttempt` has it: the fields of `RecipientResult`."""
    return {
        "address": recipient.email,
        "status": recipient.status,
        "stage": recipient.stage,
        "code": recipient.code,
        "enhanced_code": recipient.enhanced_code,
        "text": recipient.text,
    }


class DeliveryAttempt(TenantOwned, Base):
    """One attempt to deliver an email.

    There is no row if the first attempt was accepted for every recipient: the delivery's own rows say all about it.
    `recipient_results` holds the `stored_result` for each of its recipients.
    """

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        _reference_to_delivery("fk_delivery_attempts_delivery"),
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


def hold_has_ended() -> ColumnElement[bool]:
    """Return the condition that the time of a held email is over, as its index is defined."""
    return and_(text(IS_HELD), text(f"{HOLD_END} <= now()"))
