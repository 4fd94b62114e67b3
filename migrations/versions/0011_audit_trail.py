"""The audit trail, to which the application's role may add, and which it may read."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Integer()),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("actor_account_id", sa.Integer()),
        sa.Column("from_address", sa.String()),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    for first in ("tenant_id", "actor", "action"):
        op.create_index(f"ix_audit_entries_{first}_id", "audit_entries", [first, "id"])
    op.execute("ALTER TABLE audit_entries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON audit_entries
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    # An owner may have given the role more on tables to come.
    op.execute("REVOKE ALL ON audit_entries FROM PUBLIC, pbx_portal")
    op.execute("GRANT SELECT, INSERT ON audit_entries TO pbx_portal")


def downgrade() -> None:
    op.drop_table("audit_entries")
