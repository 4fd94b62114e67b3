"""How a tenant's mails look, and in which language an account reads the portal."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

CHECK = "ck_tenants_mail_colour_hexadecimal"


def upgrade() -> None:
    op.add_column("tenants", sa.Column("mail_colour", sa.String()))
    op.add_column("tenants", sa.Column("mail_footer", sa.String()))
    op.create_check_constraint(op.f(CHECK), "tenants", "mail_colour ~ '^#[0-9a-f]{6}$'")
    op.add_column("accounts", sa.Column("locale", sa.String()))


def downgrade() -> None:
    op.drop_column("accounts", "locale")
    op.drop_constraint(op.f(CHECK), "tenants")
    op.drop_column("tenants", "mail_footer")
    op.drop_column("tenants", "mail_colour")
