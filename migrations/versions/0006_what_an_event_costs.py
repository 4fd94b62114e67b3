"""What an event costs: constraints that others imply are not checked for each event."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("uq_deliveries_message_id", "deliveries")
    op.drop_constraint("fk_deliveries_tenant_id", "deliveries")
    op.drop_constraint("fk_delivery_recipients_tenant_id", "delivery_recipients")


def downgrade() -> None:
    op.create_unique_constraint("uq_deliveries_message_id", "deliveries", ["message_id"])
    for table in ("deliveries", "delivery_recipients"):
        op.create_foreign_key(f"fk_{table}_tenant_id", table, "tenants", ["tenant_id"], ["id"], ondelete="CASCADE")
