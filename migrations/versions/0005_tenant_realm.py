"""The realm with which a tenant's PBX challenges softphones, where it is not the SIP domain."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("realm", sa.String))


def downgrade() -> None:
    op.drop_column("tenants", "realm")
