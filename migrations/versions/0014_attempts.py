"""What each attempt came to, where a mail was not accepted at the first one: for the story of a mail."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mail_server", sa.String()),
        sa.Column("replies", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_delivery_attempts")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["deliveries.tenant_id", "deliveries.id"],
            name="fk_delivery_attempts_delivery",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_delivery_attempts_number_counts")),
    )
    op.execute("ALTER TABLE delivery_attempts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON delivery_attempts
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON delivery_attempts TO pbx_portal")


def downgrade() -> None:
    op.drop_table("delivery_attempts")
