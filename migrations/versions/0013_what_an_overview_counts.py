"""What an overview counts: mails by day and outcome, kept by a worker, and indexes of what needs attention."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# What was not delivered, and the time at which that was certain.
UNDELIVERED = {"failed": "attempted_at", "expired": "expires_at"}


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tallied_day", sa.Date(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint("count > 0", name=op.f("ck_tallies_count_is_positive")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_tallies_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "day", "tallied_day", "status", name=op.f("pk_tallies")),
    )
    op.create_index("ix_tallies_tallied_day_status", "tallies", ["tallied_day", "status"])
    op.create_table(
        "tallied_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_tallied_days")),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON tallies, tallied_days TO pbx_portal")
    op.execute("ALTER TABLE tallies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON tallies
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    for status, moment in UNDELIVERED.items():
        op.create_index(
            f"ix_deliveries_{status}",
            "deliveries",
            [moment, "tenant_id"],
            postgresql_where=sa.text(f"status = '{status}'"),
        )
    op.create_index("ix_notification_switches_enabled_tenant_id", "notification_switches", ["enabled", "tenant_id"])
    op.create_index("ix_mail_servers_rejected_at", "mail_servers", ["rejected_at"])
    op.create_index("ix_mail_servers_paused_until", "mail_servers", ["paused_until"])
    op.create_index(
        "ix_pbx_keys_quiet_since",
        "pbx_keys",
        [sa.text("greatest(last_used_at, created_at)")],
        postgresql_where=sa.text("tenant_id IS NOT NULL AND revoked_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_pbx_keys_quiet_since", "pbx_keys")
    op.drop_index("ix_mail_servers_paused_until", "mail_servers")
    op.drop_index("ix_mail_servers_rejected_at", "mail_servers")
    op.drop_index("ix_notification_switches_enabled_tenant_id", "notification_switches")
    for status in UNDELIVERED:
        op.drop_index(f"ix_deliveries_{status}", "deliveries")
    op.drop_table("tallied_days")
    op.drop_table("tallies")
