"""Find recipients and their emails by email address, among all tenants.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes."""
    op.create_index("ix_recipients_email", "recipients", ["email"])
    op.create_index("ix_delivery_recipients_email_delivery_id", "delivery_recipients", ["email", "delivery_id"])


def downgrade() -> None:
    """Drop the indexes."""
    op.drop_index("ix_delivery_recipients_email_delivery_id", "delivery_recipients")
    op.drop_index("ix_recipients_email", "recipients")
