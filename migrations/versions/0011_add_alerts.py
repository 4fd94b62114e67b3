"""Alerts, the emails about them, who gets which, and what they are found by.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"
TIME = sa.DateTime(timezone=True)
KNOWN_KIND = "kind IN ('mail_server', 'held', 'expiry', 'silence', 'no_worker', 'disk')"


def upgrade() -> None:
    """Create the tables. A mail server that is rejected or paused has been failing since now at the latest."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE")),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("details", JSONB(), nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("tell_at", TIME, nullable=False),
        sa.Column("absent_since", TIME),
        sa.Column("ended_at", TIME, index=True),
        sa.CheckConstraint(KNOWN_KIND, name="kind_known"),
        sa.CheckConstraint("ended_at IS NULL OR absent_since IS NOT NULL", name="ended_is_absent"),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["tenant_id", "kind", "subject"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "alert_notices",
        sa.Column("alert_id", sa.Integer(), sa.ForeignKey("alerts.id", ondelete="CASCADE"), primary_key=True),
        _account_id(index=True),
        sa.Column("told_at", TIME, index=True),
        sa.Column("end_told_at", TIME),
        sa.Column("failure", sa.String()),
        sa.Column("retry_at", TIME, index=True),
        sa.CheckConstraint("(failure IS NULL) = (retry_at IS NULL)", name="failure_is_retried"),
    )
    op.create_table(
        "alert_preferences",
        _account_id(),
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.CheckConstraint(KNOWN_KIND, name="kind_known"),
    )
    for table in ("alerts", "alert_notices", "alert_preferences"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE alerts_id_seq TO {ROLE}")
    op.execute("ALTER TABLE alerts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON alerts
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    op.add_column("tenants", sa.Column("alerts_on_silence", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("mail_servers", sa.Column("failing_since", TIME))
    op.add_column("mail_servers", sa.Column("last_failed_at", TIME))
    op.execute("""
        UPDATE mail_servers
        SET failing_since = coalesce(rejected_at, now()), last_failed_at = coalesce(rejected_at, now())
        WHERE rejected_at IS NOT NULL OR paused_until > now()
    """)


def downgrade() -> None:
    """Drop it all."""
    op.drop_column("mail_servers", "last_failed_at")
    op.drop_column("mail_servers", "failing_since")
    op.drop_column("tenants", "alerts_on_silence")
    for table in ("alert_preferences", "alert_notices", "alerts"):
        op.drop_table(table)


def _account_id(*, index: bool = False) -> sa.Column[int]:
    reference = sa.ForeignKey("accounts.id", ondelete="CASCADE")
    return sa.Column("account_id", sa.Integer(), reference, primary_key=True, index=index)
