"""Keep forms that arrived after their session had ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "kept_forms",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "account_id",
            sa.Integer(),
            sa.ForeignKey("accounts.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("values_encrypted", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON kept_forms TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE kept_forms_id_seq TO {ROLE}")


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("kept_forms")
