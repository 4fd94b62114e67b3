"""Alerts that lasted or last, who was emailed about them, and which alerts an account gets."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from portal.database.scope import TenantOrSystemOwned
from portal.extensions import Base

KNOWN_KIND = "kind IN ('mail_server', 'held', 'expiry', 'silence', 'no_worker', 'disk')"


class RecordedAlert(TenantOrSystemOwned, Base):
    """A condition of a tenant, or of the system where `tenant_id` is NULL, that administrators are emailed about.

    They are emailed from `tell_at` on. The alert has not been seen since `absent_since`; if it stays away, it has ended
    then.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "tenant_id",
            "kind",
            "subject",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index(None, "ended_at"),
        CheckConstraint(KNOWN_KIND, name="kind_known"),
        CheckConstraint("ended_at IS NULL OR absent_since IS NOT NULL", name="ended_is_absent"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]  # tells it from others of its kind: a reason, a key's id; may be empty
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)  # what its sentence is made from
    began_at: Mapped[datetime]
    tell_at: Mapped[datetime]
    absent_since: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class AlertNotice(Base):
    """What an account was emailed about an alert, and why the last email to it failed.

    It belongs to an account, as a session does: only the list of due emails and the overviews read it.
    """

    __tablename__ = "alert_notices"
    __table_args__ = (
        Index(None, "told_at"),
        Index(None, "retry_at"),
        CheckConstraint("(failure IS NULL) = (retry_at IS NULL)", name="failure_is_retried"),
    )

    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, index=True)
    told_at: Mapped[datetime | None]
    end_told_at: Mapped[datetime | None]
    failure: Mapped[str | None]
    retry_at: Mapped[datetime | None]


class AlertPreference(Base):
    """Whether an account gets emails about a kind of alert, where it has chosen."""

    __tablename__ = "alert_preferences"
    __table_args__ = (CheckConstraint(KNOWN_KIND, name="kind_known"),)

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool]
