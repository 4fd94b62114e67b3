"""Growth: the search for a tenant and the last attempt of a tenant take as long among many rows as among few."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All that stands in a tenant's name or domain and has one to three characters; of a text alone, only the longest.
    op.execute("""
        CREATE FUNCTION grams(name varchar, domain varchar DEFAULT NULL) RETURNS text[] IMMUTABLE PARALLEL SAFE
        RETURN ARRAY(
            SELECT DISTINCT substr(words, start, size)
            FROM lower(name || coalesce(E'\\n' || domain, '')) AS words,
                 generate_series(CASE WHEN domain IS NULL THEN least(length(words), 3) ELSE 1 END, 3) AS size,
                 generate_series(1, length(words) - size + 1) AS start
        )
    """)
    of_tenant = sa.Computed("grams(name, domain)", persisted=True)
    op.add_column("tenants", sa.Column("grams", postgresql.ARRAY(sa.Text()), of_tenant))
    op.create_index("ix_tenants_grams", "tenants", ["grams"], postgresql_using="gin")
    op.create_index(
        "ix_deliveries_attempted",
        "deliveries",
        ["tenant_id", "attempted_at"],
        postgresql_where="attempted_at IS NOT NULL",
    )
    op.create_index(
        "ix_provisioning_tokens_expires_at",
        "provisioning_tokens",
        ["expires_at"],
        postgresql_where="line_encrypted IS NOT NULL",
    )


def downgrade() -> None:
    op.drop_index("ix_provisioning_tokens_expires_at", "provisioning_tokens")
    op.drop_index("ix_deliveries_attempted", "deliveries")
    op.drop_index("ix_tenants_grams", "tenants")
    op.drop_column("tenants", "grams")
    op.execute("DROP FUNCTION grams")
