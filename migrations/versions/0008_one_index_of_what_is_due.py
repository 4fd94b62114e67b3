"""One index of what is due: a mail whose time has come, or whose lease ran out."""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WAITS = "lease_until IS NOT NULL OR next_attempt_at IS NOT NULL"


def upgrade() -> None:
    op.drop_index("ix_deliveries_leased", "deliveries")
    op.drop_index("ix_deliveries_due", "deliveries")
    op.create_index(
        "ix_deliveries_due", "deliveries", [text("least(lease_until, next_attempt_at)")], postgresql_where=WAITS
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_due", "deliveries")
    for name, column in (("due", "next_attempt_at"), ("leased", "lease_until")):
        op.create_index(f"ix_deliveries_{name}", "deliveries", [column], postgresql_where=f"{column} IS NOT NULL")
