"""What a worker finds out for the overview of the system."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from portal.extensions import Base


class WorstTenants(Base):
    """The tenants with the worst problems, the worst first, and how many tenants had any. There is one row at most."""

    __tablename__ = "worst_tenants"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    found_at: Mapped[datetime]
    tenant_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    count: Mapped[int]
