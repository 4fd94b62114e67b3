"""Provisioning tokens belong to a user: a fresh one ends those that the user has not used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEX = "ix_provisioning_tokens_tenant_id_address_of_record"


def upgrade() -> None:
    op.add_column("provisioning_tokens", sa.Column("address_of_record", sa.String()))
    op.add_column("provisioning_tokens", sa.Column("event_id", sa.Uuid()))
    op.add_column("provisioning_tokens", sa.Column("audience", sa.String()))
    op.execute("""
        UPDATE provisioning_tokens token SET event_id = events.id, audience = deliveries.audience,
            address_of_record = (events.data ->> 'extension_number') || '@'
                || coalesce(events.data ->> 'sip_domain', tenants.domain)
        FROM deliveries JOIN events ON events.id = deliveries.event_id JOIN tenants ON tenants.id = events.tenant_id
        WHERE deliveries.id = token.made_for
    """)
    op.execute("DELETE FROM provisioning_tokens WHERE address_of_record IS NULL")
    for column in ("address_of_record", "event_id", "audience"):
        op.alter_column("provisioning_tokens", column, nullable=False)
    op.drop_column("provisioning_tokens", "made_for")
    op.drop_index("ix_provisioning_tokens_tenant_id", "provisioning_tokens")
    op.create_index(INDEX, "provisioning_tokens", ["tenant_id", "address_of_record"])


def downgrade() -> None:
    op.add_column("provisioning_tokens", sa.Column("made_for", sa.Uuid()))
    op.execute("""
        UPDATE provisioning_tokens token SET made_for = deliveries.id FROM deliveries
        WHERE deliveries.event_id = token.event_id AND deliveries.audience = token.audience
    """)
    op.create_index("ix_provisioning_tokens_made_for", "provisioning_tokens", ["made_for"])
    op.drop_index(INDEX, "provisioning_tokens")
    op.create_index("ix_provisioning_tokens_tenant_id", "provisioning_tokens", ["tenant_id"])
    for column in ("address_of_record", "event_id", "audience"):
        op.drop_column("provisioning_tokens", column)
