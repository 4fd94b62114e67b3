"""A recipient may do without some events, and be paused; an event that none of them wants now sends no mail."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

IGNORED = "'switched_off', 'tenant_suspended'"
HELD = (
    "'no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', 'switched_off', "
    "'tenant_suspended', 'throttled'"
)
NEW = "'no_recipient_wants_it'"


def upgrade() -> None:
    op.add_column(
        "recipients", sa.Column("excluded_events", sa.ARRAY(sa.String()), nullable=False, server_default="{}")
    )
    op.add_column("recipients", sa.Column("paused_until", sa.DateTime(timezone=True)))
    _replace("events", "ignored_reason_known", f"ignored_reason IN ({IGNORED}, {NEW})")
    _replace("deliveries", "reason_known", f"reason IN ({HELD}, {NEW})")


def downgrade() -> None:
    op.execute(f"UPDATE events SET ignored_reason = 'switched_off' WHERE ignored_reason = {NEW}")  # noqa: S608
    op.execute(f"UPDATE deliveries SET reason = 'no_recipients' WHERE reason = {NEW}")  # noqa: S608
    _replace("events", "ignored_reason_known", f"ignored_reason IN ({IGNORED})")
    _replace("deliveries", "reason_known", f"reason IN ({HELD})")
    op.drop_column("recipients", "paused_until")
    op.drop_column("recipients", "excluded_events")


def _replace(table: str, name: str, check: str) -> None:
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{name} CHECK ({check})")
