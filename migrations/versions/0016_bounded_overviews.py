"""The tenants with the worst problems, and indexes for held emails, event IDs, and the tenants by name.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
contracts = "The constraint on event IDs has its name again in the same transaction."

EVENT_ID = "uq_events_tenant_id_external_id"
IS_HELD = sa.text("reason IS NOT NULL")
HOLD_END = sa.text("least(held_until, expires_at)")
HELD_SINCE = sa.text("coalesce(last_attempt_at, created_at)")
ROLE = "pbx_portal"


def upgrade() -> None:
    """Create the table, and replace indexes: those of held emails on a time become one, and event IDs come first."""
    op.drop_index("ix_deliveries_held_until", "deliveries")
    op.drop_index("ix_deliveries_held_expiry", "deliveries")
    op.create_index("ix_deliveries_hold_end", "deliveries", [HOLD_END], postgresql_where=IS_HELD)
    since: list[str | sa.TextClause] = ["tenant_id", "reason", HELD_SINCE]
    op.create_index("ix_deliveries_held_since", "deliveries", since, postgresql_where=IS_HELD)
    op.drop_constraint(EVENT_ID, "events", type_="unique")
    op.create_unique_constraint(EVENT_ID, "events", ["external_id", "tenant_id"])
    op.create_index("ix_tenants_name", "tenants", [sa.text("lower(name)"), "domain"])
    op.create_table(
        "worst_tenants",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_ids", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON worst_tenants TO {ROLE}")


def downgrade() -> None:
    """Drop the table, and restore the indexes."""
    op.drop_table("worst_tenants")
    op.drop_index("ix_tenants_name", "tenants")
    op.drop_constraint(EVENT_ID, "events", type_="unique")
    op.create_unique_constraint(EVENT_ID, "events", ["tenant_id", "external_id"])
    op.drop_index("ix_deliveries_held_since", "deliveries")
    op.drop_index("ix_deliveries_hold_end", "deliveries")
    op.create_index("ix_deliveries_held_expiry", "deliveries", ["expires_at"], postgresql_where=IS_HELD)
    has_end = sa.text("held_until IS NOT NULL")
    op.create_index("ix_deliveries_held_until", "deliveries", ["held_until"], postgresql_where=has_end)
