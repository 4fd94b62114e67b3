"""The first schema: tables, indexes, row level security and the application's role.

Names of constraints and indexes come from the naming convention in `portal.extensions`, unless they are given.
"""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLE = "pbx_portal"  # the application's: it owns nothing, and sees the rows of the tenant in scope
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")

# Every table, each after those that it references.
TABLES = (
    *("roles", "accounts", "account_roles", "account_sessions", "rate_limits", "sign_in_policy"),
    *("tenants", "memberships"),
    *("mail_servers", "reminder_dismissals", "recipients", "mail_templates", "notification_settings"),
    *("api_keys", "rejected_requests"),
    *("events", "deliveries", "delivery_recipients", "delivery_attempts"),
    *("storms", "daily_stats", "daily_totals", "provisioning_tokens", "audit_entries"),
)
# Tables with a `tenant_id` that every statement is limited to. Memberships are read before a tenant is known.
TENANT_TABLES = (
    *("mail_servers", "reminder_dismissals", "recipients", "mail_templates", "notification_settings"),
    *("api_keys", "rejected_requests", "events", "deliveries", "delivery_recipients", "delivery_attempts"),
    *("storms", "daily_stats", "provisioning_tokens", "audit_entries"),
)
APPEND_ONLY_TABLES = ("audit_entries", "mail_templates")

WAITING = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL)"
OPEN = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"


def upgrade() -> None:
    _create_functions()
    _create_account_tables()
    _create_tenant_tables()
    _create_mail_server_tables()
    _create_notification_tables()
    _create_api_key_tables()
    _create_delivery_tables()
    _create_statistics_tables()
    _create_provisioning_and_audit_tables()
    # Procrastinate's script has many statements, which Postgres takes only without parameters, so not through `op`.
    op.get_bind().connection.cursor().execute(SchemaManager.get_schema())
    _create_role()
    _grant_privileges()
    _enable_row_level_security()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION tenant_in_scope")
    op.execute("DROP FUNCTION trigrams")
    _drop_procrastinate("TABLE", "SELECT oid::regclass AS name FROM pg_class WHERE relkind = 'r'", "relname")
    _drop_procrastinate("FUNCTION", "SELECT oid::regprocedure AS name FROM pg_proc WHERE true", "proname")
    _drop_procrastinate("TYPE", "SELECT oid::regtype AS name FROM pg_type WHERE typtype IN ('e', 'c')", "typname")
    op.execute(f"REVOKE ALL ON alembic_version FROM {ROLE}")  # the role is the server's and stays


def _create_functions() -> None:
    # The tenant in scope; 0 for every tenant; NULL, which equals nothing, where no scope was entered.
    op.execute("""
        CREATE FUNCTION tenant_in_scope() RETURNS int STABLE PARALLEL SAFE
        RETURN nullif(current_setting('portal.tenant', true), '')::int
    """)
    # All parts of a tenant's name and domain with one to three characters; of a search text alone, only the longest.
    op.execute(r"""
        CREATE FUNCTION trigrams(name varchar, domain varchar DEFAULT NULL) RETURNS text[] IMMUTABLE PARALLEL SAFE
        RETURN ARRAY(
            SELECT DISTINCT substr(content, start, size)
            FROM lower(name || coalesce(E'\n' || domain, '')) AS content,
                 generate_series(CASE WHEN domain IS NULL THEN least(length(content), 3) ELSE 1 END, 3) AS size,
                 generate_series(1, length(content) - size + 1) AS start
        )
    """)


def _create_account_tables() -> None:
    op.create_table(
        "roles",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("email", sa.String(), nullable=False, unique=True),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("language", sa.String()),
        sa.Column("fs_uniquifier", sa.String(), nullable=False, unique=True),
        sa.Column("totp_secret_encrypted", sa.LargeBinary()),
        sa.Column("totp_counter", sa.BigInteger()),
        sa.Column("recovery_code_hashes", ARRAY(sa.LargeBinary()), nullable=False, server_default=sa.text("'{}'")),
        sa.CheckConstraint("email = lower(email)", name="email_lower_case"),
    )
    op.create_table(
        "account_roles",
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("role_id", sa.Integer(), sa.ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_table(
        "account_sessions",
        sa.Column("id", sa.Integer(), primary_key=True),
        _account_id(index=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("last_seen_at", TIME, nullable=False, server_default=NOW),
        sa.Column("expires_at", TIME, nullable=False, index=True),
        sa.Column("remembered", sa.Boolean(), nullable=False),
        sa.Column("ip_address", sa.String(), nullable=False),
        sa.Column("browser", sa.String(), nullable=False),
    )
    op.create_table(
        "rate_limits",
        sa.Column("subject_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("empty_at", TIME, nullable=False, index=True),
    )
    op.create_table(
        "sign_in_policy",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("two_factor_required", sa.Boolean(), nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )


def _create_tenant_tables() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False, unique=True),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("sender_name", sa.String()),
        sa.Column("reply_to", sa.String()),
        sa.Column("brand_color", sa.String()),
        sa.Column("email_footer", sa.String()),
        sa.Column("storm_limit", sa.Integer(), nullable=False, server_default="10"),
        sa.Column("storm_minutes", sa.Integer(), nullable=False, server_default="5"),
        sa.Column("suspended_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("search_trigrams", ARRAY(sa.Text()), sa.Computed("trigrams(name, domain)", persisted=True)),
        sa.CheckConstraint("name <> ''", name="name_not_empty"),
        sa.CheckConstraint("domain <> '' AND domain = lower(domain)", name="domain_lower_case"),
        sa.CheckConstraint("brand_color ~ '^#[0-9a-f]{6}$'", name="brand_color_is_hex"),
        sa.CheckConstraint("storm_limit BETWEEN 1 AND 1000", name="storm_limit_in_range"),
        sa.CheckConstraint("storm_minutes BETWEEN 1 AND 60", name="storm_minutes_in_range"),
    )
    op.create_index("ix_tenants_search_trigrams", "tenants", ["search_trigrams"], postgresql_using="gin")
    op.create_table("memberships", _account_id(primary_key=True), _tenant_id(primary_key=True, index=True))


def _create_mail_server_tables() -> None:
    op.create_table(
        "mail_servers",
        sa.Column("id", sa.Integer(), primary_key=True),
        _tenant_id(nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("encryption", sa.String(), nullable=False),
        sa.Column("auth_mode", sa.String(), nullable=False),
        sa.Column("username", sa.String()),
        sa.Column("password_encrypted", sa.LargeBinary()),
        sa.Column("sender_email", sa.String(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("paused_until", TIME, index=True),
        sa.Column("pause_reason", sa.String()),
        sa.Column("rejected_at", TIME, index=True),
        sa.Column("saved_at", TIME, nullable=False, server_default=NOW),
        sa.UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port_in_range"),
        sa.CheckConstraint("encryption IN ('none', 'starttls', 'tls')", name="encryption_known"),
        sa.CheckConstraint("auth_mode IN ('none', 'auto', 'login', 'plain')", name="auth_mode_known"),
        sa.CheckConstraint("auth_mode = 'none' OR username IS NOT NULL", name="auth_has_username"),
        sa.CheckConstraint("NOT shared OR tenant_id IS NULL", name="only_system_is_shared"),
    )
    op.create_table("reminder_dismissals", _tenant_id(primary_key=True), _account_id(primary_key=True))


def _create_notification_tables() -> None:
    op.create_table(
        "recipients",
        sa.Column("id", sa.Integer(), primary_key=True),
        _tenant_id(),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("excluded_event_types", ARRAY(sa.String()), nullable=False, server_default="{}"),
        sa.Column("paused_until", TIME),
        sa.UniqueConstraint("tenant_id", "email"),
        sa.CheckConstraint("email <> ''", name="email_not_empty"),
    )
    op.create_table(
        "mail_templates",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _tenant_id(),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.UniqueConstraint("tenant_id", "event_type", "id"),
        sa.CheckConstraint("char_length(subject) BETWEEN 1 AND 200", name="subject_length"),
        sa.CheckConstraint("octet_length(body) BETWEEN 1 AND 100000", name="body_size"),
        sa.CheckConstraint("format IN ('markdown', 'html')", name="format_known"),
    )
    op.create_table(
        "notification_settings",
        _tenant_id(primary_key=True),
        sa.Column("event_type", sa.String(), primary_key=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("template_id", sa.Uuid()),
        sa.ForeignKeyConstraint(
            ["tenant_id", "event_type", "template_id"],
            ["mail_templates.tenant_id", "mail_templates.event_type", "mail_templates.id"],
        ),
        sa.CheckConstraint("audience IN ('both', 'recipients', 'user')", name="audience_known"),
    )
    op.create_index(None, "notification_settings", ["enabled", "tenant_id"])


def _create_api_key_tables() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), primary_key=True),
        _tenant_id(nullable=True, index=True),
        sa.Column("name", sa.String(), nullable=False, server_default="PBX"),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("signing_secret_encrypted", sa.LargeBinary()),
        sa.Column("previous_secret_encrypted", sa.LargeBinary()),
        sa.Column("previous_secret_expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.Column("last_used_ip", sa.String()),
        sa.Column("revoked_at", TIME),
        sa.CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
        sa.CheckConstraint(
            "(previous_secret_encrypted IS NULL) = (previous_secret_expires_at IS NULL)",
            name="previous_secret_expires",
        ),
    )
    op.create_index(
        "ix_api_keys_last_activity",
        "api_keys",
        [sa.text("greatest(last_used_at, created_at)")],
        postgresql_where="tenant_id IS NOT NULL AND revoked_at IS NULL",
    )
    op.create_table(
        "rejected_requests",
        sa.Column("id", sa.BigInteger(), primary_key=True),
        _tenant_id(nullable=True),
        sa.Column("api_key_id", sa.Integer(), sa.ForeignKey("api_keys.id", ondelete="CASCADE")),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("event_type", sa.String()),
        sa.Column("hour", TIME, nullable=False, index=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last_request_at", TIME, nullable=False),
        sa.Column("ip_address", sa.String()),
        sa.Column("detail", sa.String()),
        sa.UniqueConstraint(
            *("tenant_id", "api_key_id", "reason", "event_type", "hour"),
            name=op.f("uq_rejected_requests_group"),
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("count > 0", name="count_is_positive"),
    )


def _create_delivery_tables() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _tenant_id(),
        sa.Column("external_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False, server_default=NOW),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("secrets_encrypted", sa.LargeBinary()),
        sa.Column("ignored_reason", sa.String()),
        sa.Column("is_sample", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("tenant_id", "external_id"),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),
        sa.CheckConstraint(
            "ignored_reason IN ('switched_off', 'tenant_suspended', 'no_recipient_wants_it')",
            name="ignored_reason_known",
        ),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), nullable=False),  # no foreign key: the event has one
        sa.Column("event_id", sa.Uuid(), nullable=False, index=True),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("mail_server_label", sa.String()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME),
        sa.Column("next_attempt_at", TIME),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("last_attempt_at", TIME),
        sa.UniqueConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(
            *(["tenant_id", "event_id"], ["events.tenant_id", "events.id"]),
            name=op.f("fk_deliveries_event"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("audience IN ('recipients', 'user')", name="audience_known"),
        sa.CheckConstraint(
            "status IN ('pending', 'sent', 'partial', 'deferred', 'failed', 'held', 'expired', 'discarded')",
            name="status_known",
        ),
        sa.CheckConstraint(
            "reason IN ('no_mail_server', 'no_recipients', 'mail_server_rejected', 'may_have_been_sent', "
            "'switched_off', 'tenant_suspended', 'throttled', 'no_recipient_wants_it')",
            name="reason_known",
        ),
        sa.CheckConstraint("(status = 'pending') = (lease_until IS NOT NULL)", name="pending_is_leased"),
        sa.CheckConstraint("status <> 'deferred' OR next_attempt_at IS NOT NULL", name="deferred_has_next_attempt"),
        sa.CheckConstraint("next_attempt_at <= expires_at", name="next_attempt_before_expiry"),
        sa.CheckConstraint("status <> 'held' OR reason IS NOT NULL", name="held_has_reason"),
        sa.CheckConstraint(
            f"status NOT IN ('sent', 'failed', 'expired', 'discarded') OR NOT {OPEN}", name="finished_is_not_open"
        ),
    )
    due_at = sa.text("least(lease_until, next_attempt_at)")
    for name, columns, condition in (
        ("due", [due_at], WAITING),
        ("last_attempt_at", ["tenant_id", "last_attempt_at"], "last_attempt_at IS NOT NULL"),
        ("held", ["tenant_id", "id"], "reason IS NOT NULL"),
        ("held_expiry", ["expires_at"], "reason IS NOT NULL"),
        ("failed", ["last_attempt_at", "tenant_id"], "status = 'failed'"),
        ("expired", ["expires_at", "tenant_id"], "status = 'expired'"),
    ):
        op.create_index(f"ix_deliveries_{name}", "deliveries", columns, postgresql_where=condition)
    op.create_table(
        "delivery_recipients",
        *_delivery_key("delivery_recipients"),
        sa.Column("email", sa.String(), primary_key=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stage", sa.String()),
        sa.Column("code", sa.Integer()),
        sa.Column("enhanced_code", sa.String()),
        sa.Column("text", sa.String()),
        sa.CheckConstraint(
            "status IN ('pending', 'sent', 'deferred', 'failed', 'held', 'expired', 'discarded')", name="status_known"
        ),
        sa.CheckConstraint("code BETWEEN 200 AND 599", name="code_is_smtp"),
    )
    op.create_table(
        "delivery_attempts",
        *_delivery_key("delivery_attempts"),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("attempted_at", TIME, nullable=False),
        sa.Column("mail_server_label", sa.String()),
        sa.Column("recipient_results", JSONB(), nullable=False),
        sa.CheckConstraint("number > 0", name="number_is_positive"),
    )


def _create_statistics_tables() -> None:
    op.create_table(
        "storms",
        _tenant_id(primary_key=True),
        sa.Column("event_type", sa.String(), primary_key=True),
        sa.Column("queue_number", sa.String(), primary_key=True),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ends_at", TIME, nullable=False, index=True),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.Column("held_count", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "event_count > 0 AND held_count >= 0 AND held_count <= event_count", name="held_within_events"
        ),
        sa.CheckConstraint("ends_at > started_at", name="ends_after_start"),
    )
    op.create_table(
        "daily_stats",
        _tenant_id(primary_key=True),
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("utc_day", sa.Date(), primary_key=True),
        sa.Column("status", sa.String(), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint("count > 0", name="count_is_positive"),
    )
    op.create_index(None, "daily_stats", ["utc_day", "status"])
    op.create_table(
        "daily_totals",
        sa.Column("utc_day", sa.Date(), primary_key=True),
        sa.Column("counted_at", TIME, nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
    )


def _create_provisioning_and_audit_tables() -> None:
    op.create_table(
        "provisioning_tokens",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _tenant_id(),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("address_of_record", sa.String(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("sip_account_encrypted", sa.LargeBinary()),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("spent_at", TIME),
        sa.CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        sa.CheckConstraint("spent_at IS NULL OR sip_account_encrypted IS NULL", name="spent_sip_account_erased"),
    )
    op.create_index(None, "provisioning_tokens", ["tenant_id", "address_of_record"])
    op.create_index(None, "provisioning_tokens", ["expires_at"], postgresql_where="sip_account_encrypted IS NOT NULL")
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("tenant_id", sa.Integer()),  # no foreign key: the log of a tenant outlives it
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("actor_account_id", sa.Integer()),
        sa.Column("ip_address", sa.String()),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
    )
    for column in ("tenant_id", "actor", "action"):
        op.create_index(None, "audit_entries", [column, "id"])


def _create_role() -> None:
    # A role belongs to the server, not to the database: it may exist already.
    op.execute(f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                CREATE ROLE {ROLE} NOLOGIN;
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
    """)
    # Where the application logs in as the owner, the owner must be a member. Elsewhere it often may not grant that.
    op.execute(f"""
        DO $$ BEGIN
            SET LOCAL ROLE {ROLE};
            RESET ROLE;
        EXCEPTION WHEN insufficient_privilege THEN
            BEGIN
                GRANT {ROLE} TO CURRENT_USER;
            EXCEPTION WHEN insufficient_privilege THEN NULL;
            END;
        END $$
    """)


def _grant_privileges() -> None:
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}")
    op.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
    op.execute(f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {ROLE}")
    for table in APPEND_ONLY_TABLES:
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, {ROLE}")  # default privileges may give more
        op.execute(f"GRANT SELECT, INSERT ON {table} TO {ROLE}")


def _enable_row_level_security() -> None:
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        # A sub-select is evaluated once for a statement, and not for each row.
        op.execute(f"""
            CREATE POLICY tenant_in_scope ON {table}
            USING ((SELECT tenant_in_scope() = 0) OR tenant_id = (SELECT tenant_in_scope()))
        """)


def _tenant_id(*, primary_key: bool = False, nullable: bool = False, index: bool = False) -> sa.Column[int]:
    reference = sa.ForeignKey("tenants.id", ondelete="CASCADE")
    return sa.Column(
        "tenant_id", sa.Integer(), reference, primary_key=primary_key, nullable=nullable, index=index or None
    )


def _account_id(*, primary_key: bool = False, index: bool = False) -> sa.Column[int]:
    reference = sa.ForeignKey("accounts.id", ondelete="CASCADE")
    return sa.Column(
        "account_id", sa.Integer(), reference, primary_key=primary_key, nullable=False, index=index or None
    )


def _delivery_key(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    """Return the columns that refer to a delivery, as the first part of a primary key."""
    return (
        sa.Column("delivery_id", sa.Uuid(), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            *(["tenant_id", "delivery_id"], ["deliveries.tenant_id", "deliveries.id"]),
            name=op.f(f"fk_{table}_delivery"),
            ondelete="CASCADE",
        ),
    )


def _drop_procrastinate(kind: str, names: str, column: str) -> None:
    op.execute(f"""
        DO $$ DECLARE item record; BEGIN
            FOR item IN {names} AND {column} LIKE 'procrastinate%'
            LOOP EXECUTE 'DROP {kind} IF EXISTS ' || item.name || ' CASCADE'; END LOOP;
        END $$
    """)
