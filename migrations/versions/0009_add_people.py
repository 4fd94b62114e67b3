"""People: names, last sign-ins, the role in a tenant, invitations, and changes of an account's email address.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    """Add the columns and tables. Everyone who has access to a tenant administers it, as before."""
    op.add_column("accounts", sa.Column("name", sa.String()))
    op.add_column("accounts", sa.Column("last_sign_in_at", TIME))
    tenant = sa.ForeignKey("tenants.id", ondelete="SET NULL")
    op.add_column("accounts", sa.Column("deactivated_by_tenant_id", sa.Integer(), tenant))
    op.alter_column("accounts", "password", nullable=True)  # invited accounts have none yet
    op.add_column("memberships", sa.Column("role", sa.String(), nullable=False, server_default="administrator"))
    op.create_check_constraint("role_known", "memberships", "role IN ('administrator', 'viewer')")
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE")),
        sa.Column("email", sa.String(), nullable=False, index=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("invited_by", sa.String(), nullable=False),
        sa.Column("invited_by_id", sa.Integer(), sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True),
        sa.Column("sent_at", TIME, nullable=False, server_default=NOW),
        sa.Column("expires_at", TIME, nullable=False),
        sa.UniqueConstraint("tenant_id", "email", postgresql_nulls_not_distinct=True),
        sa.CheckConstraint("email = lower(email)", name="email_lower_case"),
        sa.CheckConstraint(
            "(tenant_id IS NULL) = (role = 'system_administrator') "
            "AND role IN ('administrator', 'viewer', 'system_administrator')",
            name="role_fits",
        ),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE invitations_id_seq TO {ROLE}")
    op.execute("ALTER TABLE invitations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON invitations
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    account = sa.ForeignKey("accounts.id", ondelete="CASCADE")
    op.create_table(
        "email_changes",
        sa.Column("account_id", sa.Integer(), account, primary_key=True, autoincrement=False),
        sa.Column("new_email", sa.String(), nullable=False),
        sa.Column("old_token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("new_token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("old_confirmed", sa.Boolean(), nullable=False),
        sa.Column("new_confirmed", sa.Boolean(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False, index=True),
        sa.CheckConstraint("new_email = lower(new_email)", name="email_lower_case"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON email_changes TO {ROLE}")


def downgrade() -> None:
    """Delete what an older version would misread: viewers, who would administer, and accounts without a password."""
    op.drop_table("email_changes")
    op.drop_table("invitations")
    op.execute("DELETE FROM memberships WHERE role = 'viewer'")
    op.drop_constraint("role_known", "memberships", type_="check")
    op.drop_column("memberships", "role")
    op.execute("DELETE FROM accounts WHERE password IS NULL")
    op.alter_column("accounts", "password", nullable=False)
    op.drop_column("accounts", "deactivated_by_tenant_id")
    op.drop_column("accounts", "last_sign_in_at")
    op.drop_column("accounts", "name")
