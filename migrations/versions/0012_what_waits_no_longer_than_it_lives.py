"""No mail waits longer than it lives, so what is over is due or held, and needs no index of all that is open."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

OPEN = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"
CHECK = "ck_deliveries_waits_no_longer_than_it_lives"


def upgrade() -> None:
    op.execute("UPDATE deliveries SET next_attempt_at = expires_at WHERE next_attempt_at > expires_at")
    op.create_check_constraint(op.f(CHECK), "deliveries", "next_attempt_at <= expires_at")
    op.create_index(
        "ix_deliveries_held_until", "deliveries", ["expires_at"], postgresql_where=sa.text("reason IS NOT NULL")
    )
    op.drop_index("ix_deliveries_open", "deliveries")


def downgrade() -> None:
    op.create_index("ix_deliveries_open", "deliveries", ["expires_at"], postgresql_where=sa.text(OPEN))
    op.drop_index("ix_deliveries_held_until", "deliveries")
    op.drop_constraint(op.f(CHECK), "deliveries")
