"""The persons of an OpenID provider to whom accounts are bound, and the accounts that keep their passwords."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("break_glass", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "account_identities",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint("issuer", "subject"),
        sa.UniqueConstraint("account_id", "issuer"),
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON account_identities TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE account_identities_id_seq TO {ROLE}")


def downgrade() -> None:
    op.drop_table("account_identities")
    op.drop_column("accounts", "break_glass")
