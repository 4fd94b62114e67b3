"""Mark the password hashes that were made with the SECRET_KEY. New ones are made without it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Mark all hashes with the prefix of `portal.accounts.passwords.SecretKeyHash`."""
    op.execute("UPDATE accounts SET password = 'secret-key:' || password WHERE password LIKE '$argon2%'")


def downgrade() -> None:
    """Remove the marks. The earlier version cannot check passwords hashed without the key: they must be reset."""
    op.execute("UPDATE accounts SET password = substr(password, 12) WHERE password LIKE 'secret-key:%'")
