"""Storms: how many mails an event kind of a queue has sent of late, and from when on they are held."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

REASONS = (
    "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
    "'switched_off', 'tenant_suspended'{more})"
)


def upgrade() -> None:
    op.create_table(
        "storms",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.CheckConstraint("events > 0 AND held >= 0 AND held <= events", name=op.f("ck_storms_counts_add_up")),
        sa.CheckConstraint("ends_at > started_at", name=op.f("ck_storms_ends_later")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_storms_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "event_type", "queue", name=op.f("pk_storms")),
    )
    op.create_index("ix_storms_ends_at", "storms", ["ends_at"])
    op.add_column("tenants", sa.Column("storm_limit", sa.Integer(), nullable=False, server_default="10"))
    op.add_column("tenants", sa.Column("storm_minutes", sa.Integer(), nullable=False, server_default="5"))
    op.create_check_constraint(op.f("ck_tenants_storm_limit_in_range"), "tenants", "storm_limit BETWEEN 1 AND 1000")
    op.create_check_constraint(op.f("ck_tenants_storm_minutes_in_range"), "tenants", "storm_minutes BETWEEN 1 AND 60")
    _reasons(", 'throttled'")


def downgrade() -> None:
    op.execute("UPDATE deliveries SET reason = 'no_recipients' WHERE reason = 'throttled'")
    _reasons("")
    op.drop_constraint("ck_tenants_storm_limit_in_range", "tenants")
    op.drop_constraint("ck_tenants_storm_minutes_in_range", "tenants")
    op.drop_column("tenants", "storm_minutes")
    op.drop_column("tenants", "storm_limit")
    op.drop_table("storms")


def _reasons(more: str) -> None:
    op.execute("ALTER TABLE deliveries DROP CONSTRAINT ck_deliveries_reason_known")
    op.execute(f"ALTER TABLE deliveries ADD CONSTRAINT ck_deliveries_reason_known CHECK ({REASONS.format(more=more)})")
