"""What all processes of the portal have counted, and which of them are running."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from portal.extensions import Base


class MetricValue(Base):
    """What was counted or measured under a metric's name and label values, which commas separate."""

    __tablename__ = "metric_values"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class PortalProcess(Base):
    """A web process or a worker, from its start to its end. One that was killed stays until it is deleted as old.

    `seen_at` is when it last did its work in time. The slots are those in which it sends emails.
    """

    __tablename__ = "processes"
    __table_args__ = (CheckConstraint("kind IN ('web', 'worker')", name="kind_known"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    smtp_slots: Mapped[int]
    smtp_slots_in_use: Mapped[int]
