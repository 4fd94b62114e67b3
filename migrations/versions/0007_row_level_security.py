"""Row level security: the application's role owns nothing, and sees the rows of the tenant whose scope it is in."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = (
    "deliveries",
    "delivery_recipients",
    "events",
    "mail_servers",
    "notification_switches",
    "pbx_keys",
    "provisioning_tokens",
    "recipients",
    "reminder_dismissals",
    "storms",
)


def upgrade() -> None:
    # A role is the server's, not the database's: it may be there already.
    op.execute("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pbx_portal') THEN
                CREATE ROLE pbx_portal NOLOGIN;
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
    """)
    # Where the owner is the application's login too, it has to be let in. Else it need not, and often may not.
    op.execute("""
        DO $$ BEGIN
            SET LOCAL ROLE pbx_portal;
            RESET ROLE;
        EXCEPTION WHEN insufficient_privilege THEN
            BEGIN
                GRANT pbx_portal TO CURRENT_USER;
            EXCEPTION WHEN insufficient_privilege THEN NULL;
            END;
        END $$
    """)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO pbx_portal")
    op.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO pbx_portal")
    op.execute("REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM pbx_portal")
    # The tenant in scope; 0 for every tenant; NULL, which equals nothing, where the scope was forgotten.
    op.execute("""
        CREATE FUNCTION tenant_in_scope() RETURNS int STABLE PARALLEL SAFE
        RETURN nullif(current_setting('portal.tenant', true), '')::int
    """)
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        # Each SELECT is evaluated once for a statement, and not for each row.
        op.execute(f"""
            CREATE POLICY tenant_in_scope ON {table}
            USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
        """)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP POLICY tenant_in_scope ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION tenant_in_scope()")
    op.execute("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM pbx_portal")
    op.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM pbx_portal")
