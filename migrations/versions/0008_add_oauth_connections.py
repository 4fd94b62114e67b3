"""Connections to mailboxes with OAuth 2.0, and mail servers that are signed in to with them.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROLE = "pbx_portal"
TIME = sa.DateTime(timezone=True)
MODES = "'none', 'auto', 'login', 'plain'"
GRANT_TYPES = "'authorization_code', 'client_credentials', 'service_account'"


def upgrade() -> None:
    """Create the table. Allow the authentication mode, also before a mailbox is connected."""
    op.create_table(
        "oauth_connections",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), sa.ForeignKey("tenants.id", ondelete="CASCADE")),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("grant_type", sa.String(), nullable=False),
        sa.Column("client_id", sa.String()),
        sa.Column("client_secret_encrypted", sa.LargeBinary()),
        sa.Column("private_key_encrypted", sa.LargeBinary()),
        sa.Column("certificate", sa.String()),
        sa.Column("directory", sa.String()),
        sa.Column("mailbox", sa.String()),
        sa.Column("refresh_token_encrypted", sa.LargeBinary()),
        sa.Column("access_token_encrypted", sa.LargeBinary()),
        sa.Column("access_token_expires_at", TIME),
        sa.Column("refreshing_until", TIME),
        sa.Column("credential_expires_at", TIME),
        sa.Column("connected_at", TIME),
        sa.Column("lapsed_at", TIME),
        sa.Column("lapse_reason", sa.String()),
        sa.UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),
        sa.CheckConstraint("provider IN ('microsoft', 'google')", name="provider_known"),
        sa.CheckConstraint(f"grant_type IN ({GRANT_TYPES})", name="grant_type_known"),
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_connections TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE oauth_connections_id_seq TO {ROLE}")
    op.execute("ALTER TABLE oauth_connections ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON oauth_connections
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    _change_checks(f"{MODES}, 'oauth'", "auth_mode IN ('none', 'oauth') OR username IS NOT NULL")


def downgrade() -> None:
    """Delete what the older version cannot sign in to: its tenants use the shared mail server again."""
    op.execute("DELETE FROM mail_servers WHERE auth_mode = 'oauth'")
    _change_checks(MODES, "auth_mode = 'none' OR username IS NOT NULL")
    op.drop_table("oauth_connections")


def _change_checks(modes: str, has_username: str) -> None:
    for name, condition in (("auth_mode_known", f"auth_mode IN ({modes})"), ("auth_has_username", has_username)):
        op.drop_constraint(name, "mail_servers", type_="check")
        op.create_check_constraint(name, "mail_servers", condition)
