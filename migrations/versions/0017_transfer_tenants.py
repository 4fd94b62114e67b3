"""Tenants that are being deleted, and invitations that a worker emails.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INDEXES = {"tenants": ("deletion_requested_at", "deletion_requested_at IS NOT NULL"), "invitations": ("id", "is_due")}


def upgrade() -> None:
    """Add the columns, and indexes that find the few rows with work to do."""
    op.add_column("tenants", sa.Column("deletion_requested_at", sa.DateTime(timezone=True)))
    op.add_column("invitations", sa.Column("is_due", sa.Boolean(), server_default=sa.false(), nullable=False))
    for table, (column, condition) in INDEXES.items():
        op.create_index(f"ix_{table}_due", table, [column], postgresql_where=sa.text(condition))


def downgrade() -> None:
    """Drop the columns with their indexes."""
    op.drop_column("invitations", "is_due")
    op.drop_column("tenants", "deletion_requested_at")
