"""Requests to release held emails, and an index that finds the due emails of one tenant.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"


def upgrade() -> None:
    """Create the table and the index."""
    op.create_table(
        "release_requests",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE"), index=True),
        sa.Column("server_changed", sa.Boolean(), nullable=False),
        sa.Column("last_id", sa.Uuid()),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON release_requests TO {ROLE}")
    op.execute("ALTER TABLE release_requests ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON release_requests
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    due = "least(lease_until, next_attempt_at)"
    has_due_time = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL)"
    op.create_index(
        "ix_deliveries_tenant_due",
        "deliveries",
        ["tenant_id", sa.text(due), "id"],
        postgresql_where=sa.text(has_due_time),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_deliveries_tenant_due", "deliveries")
    op.drop_table("release_requests")
