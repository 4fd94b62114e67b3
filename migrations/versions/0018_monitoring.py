"""What all processes have counted, and which of them are running.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"


def upgrade() -> None:
    """Create the tables. Their rows are updated every few seconds, so their pages have room for it."""
    op.create_table(
        "metric_values",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("labels", sa.String(), primary_key=True),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("smtp_slots", sa.Integer(), nullable=False),
        sa.Column("smtp_slots_in_use", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('web', 'worker')", name="kind_known"),
    )
    for table in ("metric_values", "processes"):
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("processes")
    op.drop_table("metric_values")
