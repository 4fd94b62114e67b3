"""Retries: the job queue's own tables, and the states that a mail may end in without being sent."""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPEN = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"
CHECKS = {
    ("deliveries", "status_known"): (
        "status IN ('pending', 'sent', 'partial', 'deferred', 'failed', 'held')",
        "status IN ('pending', 'sent', 'partial', 'deferred', 'failed', 'held', 'expired', 'discarded')",
    ),
    ("deliveries", "reason_known"): (
        "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent')",
        (
            "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
            "'switched_off', 'tenant_suspended')"
        ),
    ),
    ("delivery_recipients", "status_known"): (
        "status IN ('pending', 'sent', 'deferred', 'failed', 'held')",
        "status IN ('pending', 'sent', 'deferred', 'failed', 'held', 'expired', 'discarded')",
    ),
}


def upgrade() -> None:
    # Several statements at once need psycopg's own cursor: with parameters, even none, Postgres takes only one.
    op.get_bind().connection.cursor().execute(SchemaManager.get_schema())
    for (table, name), (_, check) in CHECKS.items():
        _replace(table, name, check)
    op.add_column("provisioning_tokens", sa.Column("made_for", sa.Uuid()))
    op.create_index("ix_provisioning_tokens_made_for", "provisioning_tokens", ["made_for"])
    op.drop_index("ix_deliveries_due", "deliveries")
    op.create_index(
        "ix_deliveries_due", "deliveries", ["next_attempt_at"], postgresql_where="next_attempt_at IS NOT NULL"
    )
    op.create_index("ix_deliveries_open", "deliveries", ["expires_at"], postgresql_where=OPEN)
    op.create_index("ix_deliveries_held", "deliveries", ["tenant_id", "id"], postgresql_where="reason IS NOT NULL")
    op.create_check_constraint(
        op.f("ck_deliveries_held_has_a_reason"), "deliveries", "status <> 'held' OR reason IS NOT NULL"
    )
    op.create_check_constraint(
        op.f("ck_deliveries_finished_is_not_open"),
        "deliveries",
        f"status NOT IN ('sent', 'failed', 'expired', 'discarded') OR NOT {OPEN}",
    )


def downgrade() -> None:
    op.execute("UPDATE deliveries SET status = 'failed', reason = NULL WHERE status IN ('expired', 'discarded')")
    op.execute("UPDATE deliveries SET reason = NULL WHERE reason IN ('switched_off', 'tenant_suspended')")
    op.execute("UPDATE delivery_recipients SET status = 'failed' WHERE status IN ('expired', 'discarded')")
    for (table, name), (check, _) in CHECKS.items():
        _replace(table, name, check)
    op.drop_column("provisioning_tokens", "made_for")
    op.drop_constraint("ck_deliveries_finished_is_not_open", "deliveries")
    op.drop_constraint("ck_deliveries_held_has_a_reason", "deliveries")
    op.drop_index("ix_deliveries_held", "deliveries")
    op.drop_index("ix_deliveries_open", "deliveries")
    op.drop_index("ix_deliveries_due", "deliveries")
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        postgresql_where="status = 'deferred' OR status = 'partial'",
    )
    for kind in ("TABLE", "FUNCTION", "TYPE"):
        op.execute(DROP_PROCRASTINATE[kind])


def _replace(table: str, name: str, check: str) -> None:
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{name} CHECK ({check})")


def _drop(what: str, names: str) -> str:
    return f"""
        DO $$ DECLARE found record; BEGIN
            FOR found IN {names} LOOP EXECUTE 'DROP {what} IF EXISTS ' || found.name || ' CASCADE'; END LOOP;
        END $$
    """


DROP_PROCRASTINATE = {
    "TABLE": _drop(
        "TABLE",
        "SELECT tablename AS name FROM pg_tables WHERE tablename LIKE 'procrastinate%' AND schemaname = 'public'",
    ),
    "FUNCTION": _drop(
        "FUNCTION", "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE proname LIKE 'procrastinate%'"
    ),
    "TYPE": _drop(
        "TYPE",
        "SELECT typname AS name FROM pg_type WHERE typname LIKE 'procrastinate%' AND typtype IN ('e', 'c')",
    ),
}
