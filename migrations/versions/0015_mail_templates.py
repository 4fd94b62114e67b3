"""Mail templates of tenants: versions that are never changed, and which one is in use."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

OF_ITS_TENANT = ["tenant_id", "event_type", "template_id"]


def upgrade() -> None:
    op.create_table(
        "mail_templates",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("char_length(subject) BETWEEN 1 AND 200", name=op.f("ck_mail_templates_subject_fits")),
        sa.CheckConstraint("octet_length(body) BETWEEN 1 AND 100000", name=op.f("ck_mail_templates_body_fits")),
        sa.CheckConstraint("format IN ('markdown', 'html')", name=op.f("ck_mail_templates_format_known")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_mail_templates_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_templates")),
        sa.UniqueConstraint("tenant_id", "event_type", "id", name=op.f("uq_mail_templates_tenant_id_event_type_id")),
    )
    op.execute("ALTER TABLE mail_templates ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY tenant_in_scope ON mail_templates
        USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
    """)
    # An owner may have given the role more on tables to come.
    op.execute("REVOKE ALL ON mail_templates FROM PUBLIC, pbx_portal")
    op.execute("GRANT SELECT, INSERT ON mail_templates TO pbx_portal")
    op.add_column("notification_switches", sa.Column("template_id", sa.Uuid()))
    op.create_foreign_key(
        op.f("fk_notification_switches_tenant_id_event_type_template_id"),
        "notification_switches",
        "mail_templates",
        OF_ITS_TENANT,
        ["tenant_id", "event_type", "id"],
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_notification_switches_tenant_id_event_type_template_id"), "notification_switches")
    op.drop_column("notification_switches", "template_id")
    op.drop_table("mail_templates")
