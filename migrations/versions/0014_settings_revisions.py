"""Count the changes of the settings that decide how events are emailed, so that processes may keep what they loaded.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"
# By table: the column with the tenant, and the columns that decide; none: all of them. Encrypted columns are left out:
# key rotation encrypts the same secrets again, and whoever changes a secret also changes one of the times.
OWNERS = {
    "tenants": ("id", ()),
    "recipients": ("tenant_id", ()),
    "notification_settings": ("tenant_id", ()),
    "mail_servers": (
        "tenant_id",
        (
            *("tenant_id", "provider", "host", "port", "encryption", "auth_mode", "username", "sender_email", "shared"),
            *("paused_until", "pause_reason", "rejected_at", "failing_since", "last_failed_at", "saved_at"),
        ),
    ),
    "api_keys": ("tenant_id", ("tenant_id", "key_hash", "expires_at", "revoked_at", "previous_secret_expires_at")),
}


def upgrade() -> None:
    """Add the counters, and the triggers that count."""
    op.create_table(
        "settings_revisions",
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE")),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON settings_revisions TO {ROLE}")
    op.execute("INSERT INTO settings_revisions (tenant_id, number) SELECT id, 1 FROM tenants")
    # The argument is the name of the column with the tenant. Without one, the settings are the system's. A row that
    # moves counts for both owners, and a transaction that changes many rows once. The row of a tenant exists, unless
    # the tenant is being deleted.
    op.execute("""
        CREATE FUNCTION count_settings_change() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            owner int;
        BEGIN
            FOR owner IN
                SELECT to_jsonb(NEW) ->> TG_ARGV[0] WHERE TG_OP <> 'DELETE'
                UNION SELECT to_jsonb(OLD) ->> TG_ARGV[0] WHERE TG_OP <> 'INSERT'
            LOOP
                IF owner IS NULL OR (TG_TABLE_NAME = 'tenants' AND TG_OP = 'INSERT') THEN
                    INSERT INTO settings_revisions AS revision (tenant_id, number) VALUES (owner, 1)
                    ON CONFLICT (tenant_id) DO UPDATE SET number = revision.number + 1;
                ELSE
                    UPDATE settings_revisions SET number = number + 1
                    WHERE tenant_id = owner AND xmin <> pg_current_xact_id()::xid;
                END IF;
            END LOOP;
            RETURN NULL;
        END $$
    """)
    for table, (column, deciding) in OWNERS.items():
        changes = f"UPDATE OF {', '.join(deciding)}" if deciding else "UPDATE"
        op.execute(f"""
            CREATE TRIGGER count_settings_change AFTER INSERT OR {changes} OR DELETE ON {table}
            FOR EACH ROW EXECUTE FUNCTION count_settings_change({column})
        """)


def downgrade() -> None:
    """Drop the counters and the triggers."""
    for table in OWNERS:
        op.execute(f"DROP TRIGGER count_settings_change ON {table}")
    op.execute("DROP FUNCTION count_settings_change")
    op.drop_table("settings_revisions")
