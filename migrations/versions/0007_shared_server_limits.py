"""How many emails each tenant sent through the shared mail server, and a reason to hold more.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"
TIME = sa.DateTime(timezone=True)
REASONS = (
    "'no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
    "'switched_off', 'tenant_suspended', 'throttled', 'no_recipient_wants_it'"
)


def upgrade() -> None:
    """Create the table, and allow the reason."""
    op.create_table(
        "shared_server_usage",
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("hour_started_at", TIME, nullable=False),
        sa.Column("hour_count", sa.Integer(), nullable=False),
        sa.Column("day_started_at", TIME, nullable=False),
        sa.Column("day_count", sa.Integer(), nullable=False),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON shared_server_usage TO {ROLE}")
    op.execute("ALTER TABLE shared_server_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON shared_server_usage
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    _allow_reasons(f"{REASONS}, 'shared_server_limit'")


def downgrade() -> None:
    """Drop the table. What it holds waits for a person, as an email that may have been sent."""
    op.execute("UPDATE deliveries SET reason = 'may_have_been_sent' WHERE reason = 'shared_server_limit'")
    _allow_reasons(REASONS)
    op.drop_table("shared_server_usage")


def _allow_reasons(reasons: str) -> None:
    op.drop_constraint("reason_known", "deliveries", type_="check")
    op.create_check_constraint("reason_known", "deliveries", f"reason IN ({reasons})")
