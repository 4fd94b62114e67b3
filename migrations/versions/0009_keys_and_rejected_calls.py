"""Keys have a name, an end and a signing secret; rejected calls are kept for their owners to see."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("pbx_keys", sa.Column("name", sa.String(), server_default="PBX", nullable=False))
    op.add_column("pbx_keys", sa.Column("signing_secret_encrypted", sa.LargeBinary()))
    op.add_column("pbx_keys", sa.Column("previous_secret_encrypted", sa.LargeBinary()))
    op.add_column("pbx_keys", sa.Column("previous_secret_until", MOMENT))
    op.add_column("pbx_keys", sa.Column("expires_at", MOMENT))
    op.add_column("pbx_keys", sa.Column("last_used_from", sa.String()))
    op.create_check_constraint(
        op.f("ck_pbx_keys_previous_secret_ends"),
        "pbx_keys",
        "(previous_secret_encrypted IS NULL) = (previous_secret_until IS NULL)",
    )
    op.create_table(
        "rejected_calls",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Integer()),
        sa.Column("key_id", sa.Integer()),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("event_type", sa.String()),
        sa.Column("hour", MOMENT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.Column("address", sa.String()),
        sa.Column("detail", sa.String()),
        sa.CheckConstraint("count > 0", name=op.f("ck_rejected_calls_count_is_positive")),
        sa.ForeignKeyConstraint(["key_id"], ["pbx_keys.id"], name=op.f("fk_rejected_calls_key_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_rejected_calls_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_calls")),
        sa.UniqueConstraint(
            "tenant_id",
            "key_id",
            "reason",
            "event_type",
            "hour",
            name="uq_rejected_calls_fold",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_rejected_calls_hour", "rejected_calls", ["hour"])
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON rejected_calls TO pbx_portal")
    op.execute("GRANT USAGE ON SEQUENCE rejected_calls_id_seq TO pbx_portal")
    op.execute("ALTER TABLE rejected_calls ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON rejected_calls
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)


def downgrade() -> None:
    op.drop_table("rejected_calls")
    op.drop_constraint(op.f("ck_pbx_keys_previous_secret_ends"), "pbx_keys")
    for column in ("last_used_from", "expires_at", "previous_secret_until", "previous_secret_encrypted"):
        op.drop_column("pbx_keys", column)
    op.drop_column("pbx_keys", "signing_secret_encrypted")
    op.drop_column("pbx_keys", "name")
