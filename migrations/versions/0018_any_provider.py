"""Which providers of mail servers there are is the registry's to say, and not the schema's."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE mail_servers DROP CONSTRAINT ck_mail_servers_provider_known")


def downgrade() -> None:
    op.execute("UPDATE mail_servers SET provider = 'smtp' WHERE provider NOT IN ('smtp', 'gmail', 'microsoft365')")
    op.create_check_constraint(
        op.f("ck_mail_servers_provider_known"), "mail_servers", "provider IN ('smtp', 'gmail', 'microsoft365')"
    )
