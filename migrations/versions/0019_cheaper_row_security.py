"""Row security of the event path's tables without sub-selects.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLES = ("events", "storms", "shared_server_usage", "deliveries", "delivery_recipients")  # as the path locks them


def upgrade() -> None:
    """Evaluate the scope for each row: starting the sub-selects takes as long as some twenty rows.

    Postgres expects this expression to be true for half of the rows, like the one before. It would expect that a
    comparison with ANY is true for hardly any, and choose other plans for pages.
    """
    for table in TABLES:
        condition = "CASE tenant_in_scope() WHEN tenant_id THEN true WHEN 0 THEN true ELSE false END"
        op.execute(f"ALTER POLICY tenant_in_scope ON {table} USING ({condition})")


def downgrade() -> None:
    """Evaluate the scope once for each statement."""
    for table in TABLES:
        condition = "(SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope())"
        op.execute(f"ALTER POLICY tenant_in_scope ON {table} USING ({condition})")
