"""Queues and quiet hours of a recipient, and what is held until quiet hours end.

Revision ID: 0013
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

REASONS = (
    "'no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
    "'switched_off', 'tenant_suspended', 'throttled', 'no_recipient_wants_it', 'shared_server_limit'"
)
LISTS = (("queues", sa.String()), ("quiet_days", sa.SmallInteger()), ("urgent_event_types", sa.String()))


def upgrade() -> None:
    """Add the columns. Existing recipients get the events of all queues and have no quiet hours."""
    for name, item in LISTS:
        op.add_column("recipients", sa.Column(name, sa.ARRAY(item), nullable=False, server_default="{}"))
    for name in ("quiet_from", "quiet_until"):
        op.add_column("recipients", sa.Column(name, sa.Time()))
    op.create_check_constraint("quiet_days_known", "recipients", "quiet_days <@ '{0,1,2,3,4,5,6}'")
    op.create_check_constraint(
        "quiet_hours_complete",
        "recipients",
        "(quiet_from IS NULL) = (quiet_days = '{}') AND (quiet_until IS NULL) = (quiet_days = '{}')",
    )
    op.add_column("deliveries", sa.Column("held_until", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_deliveries_held_until", "deliveries", ["held_until"], postgresql_where=sa.text("held_until IS NOT NULL")
    )
    op.create_check_constraint("held_until_is_held", "deliveries", "held_until IS NULL OR reason = 'quiet_hours'")
    _allow_reasons(f"{REASONS}, 'quiet_hours'")


def downgrade() -> None:
    """Drop the columns. What is held until quiet hours end waits for a person, as after a storm."""
    op.drop_constraint("held_until_is_held", "deliveries", type_="check")
    op.drop_column("deliveries", "held_until")
    op.execute("UPDATE deliveries SET reason = 'throttled' WHERE reason = 'quiet_hours'")
    _allow_reasons(REASONS)
    for name in ("quiet_hours_complete", "quiet_days_known"):
        op.drop_constraint(name, "recipients", type_="check")
    for name in ("quiet_from", "quiet_until", *(name for name, _ in LISTS)):
        op.drop_column("recipients", name)


def _allow_reasons(reasons: str) -> None:
    op.drop_constraint("reason_known", "deliveries", type_="check")
    op.create_check_constraint("reason_known", "deliveries", f"reason IN ({reasons})")
