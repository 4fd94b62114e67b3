"""The migrations: one line of them, up and down, and the schema that they make is the models'."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect, select

from portal import create_app
from portal.accounts.models import Account, Membership
from portal.config import Settings
from portal.database.engine import is_portal_table
from portal.database.scope import SET_SCOPE, every_tenant, owner_connection
from portal.deliveries.models import Delivery
from portal.extensions import Base, db
from portal.mail_servers.models import MailServer
from portal.notifications.decision import RecipientRules
from portal.notifications.models import Recipient
from portal.provisioning.models import ProvisioningToken
from portal.tenants import service as tenant_service
from tests.conftest import MIGRATIONS, close_connections

pytestmark = pytest.mark.slow


@pytest.fixture
def empty(settings: Settings, own_database: str) -> Iterator[Flask]:
    """The portal on a database without any table."""
    app = create_app(settings.model_copy(update={"database_url": own_database}))
    with app.app_context():
        yield app
        db.session.remove()
    close_connections(app)


def test_the_schema_equals_the_models(empty: Flask) -> None:
    upgrade(MIGRATIONS)
    with owner_connection() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": is_portal_table}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_they_go_down_and_up_again(empty: Flask) -> None:
    upgrade(MIGRATIONS)
    downgrade(MIGRATIONS, "base")
    with owner_connection() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
    upgrade(MIGRATIONS)
    with owner_connection() as connection:
        assert "events" in inspect(connection).get_table_names()


# What is stored before the migration after each revision. A migration that changes stored data adds its own here.
DATA_BY_REVISION = {
    "0001": """
        INSERT INTO accounts (email, password, active, fs_uniquifier)
            VALUES ('ann@acme.example', '$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA', true, 'ann');
        INSERT INTO tenants (name, domain, time_zone, language) VALUES ('Acme', 'acme.example', 'UTC', 'en');
        INSERT INTO api_keys (tenant_id, key_hash, prefix) VALUES (1, sha256('key'), 'pbx_abcdef');
        INSERT INTO mail_servers (tenant_id, provider, host, port, encryption, auth_mode, sender_email, shared)
            VALUES (1, 'smtp', 'mail.acme.example', 25, 'none', 'none', 'pbx@acme.example', false);
        INSERT INTO recipients (tenant_id, email) VALUES (1, 'ops@acme.example');
        INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
            VALUES (gen_random_uuid(), 1, 'one', 'user.created', now(), sha256('one'), '{"extension_number": "101"}');
        INSERT INTO deliveries
            (id, tenant_id, event_id, audience, message_id, status, attempts, expires_at, next_attempt_at)
            SELECT gen_random_uuid(), 1, id, 'user', '<one@portal>', 'deferred', 1, now() + interval '1 day', now()
            FROM events;
        INSERT INTO delivery_recipients (delivery_id, email, tenant_id, position, status)
            SELECT id, 'ann@acme.example', 1, 0, 'deferred' FROM deliveries;
        INSERT INTO provisioning_tokens
            (id, tenant_id, token_hash, address_of_record, event_id, audience, sip_account_encrypted, expires_at)
            SELECT gen_random_uuid(), 1, sha256('token'), '101@acme.example', id, 'user', 'x', now() + interval '1 day'
            FROM events;
    """,
}


def test_stored_data_survives_the_migrations(empty: Flask) -> None:
    for revision, data in DATA_BY_REVISION.items():
        upgrade(MIGRATIONS, revision)
        with owner_connection() as connection:
            connection.exec_driver_sql(data)
    upgrade(MIGRATIONS)
    with every_tenant():
        delivery = db.session.scalars(select(Delivery)).one()
        (unfinished,) = (recipient for recipient in delivery.recipients if recipient.status in {"pending", "deferred"})
        assert (delivery.status, unfinished.email) == ("deferred", "ann@acme.example")
        assert delivery.next_attempt_at is not None
        assert delivery.next_attempt_at <= delivery.expires_at
        assert delivery.event.data == {"extension_number": "101"}
        assert delivery.event.warnings == []
        token = db.session.scalars(select(ProvisioningToken)).one()
        assert (token.address_of_record, token.event_id) == ("101@acme.example", delivery.event_id)
        recipient = db.session.scalars(select(Recipient)).one()
        assert recipient.rules == RecipientRules("ops@acme.example", queues=[], urgent_event_types=[])
    assert db.session.scalar(select(Account.password)) == "secret-key:$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA"
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    assert (tenant.storm_limit, tenant.storm_minutes) == (10, 5)


BOUND = """
    INSERT INTO account_identities (account_id, issuer, subject) SELECT id, 'https://id.example', '1' FROM accounts;
    UPDATE accounts SET break_glass = true;
"""


def test_bindings_go_with_their_table_and_accounts_stay(empty: Flask) -> None:
    upgrade(MIGRATIONS, "0001")
    with owner_connection() as connection:
        connection.exec_driver_sql(DATA_BY_REVISION["0001"])
    upgrade(MIGRATIONS, "0010")
    with owner_connection() as connection:
        assert connection.exec_driver_sql("SELECT break_glass FROM accounts").scalars().all() == [False]
        connection.exec_driver_sql(BOUND)
    downgrade(MIGRATIONS, "0008")
    upgrade(MIGRATIONS, "0010")
    with owner_connection() as connection:
        assert connection.exec_driver_sql("SELECT break_glass FROM accounts").scalars().all() == [False]
        assert connection.exec_driver_sql("SELECT count(*) FROM account_identities").scalar_one() == 0


PEOPLE = """
    INSERT INTO accounts (email, password, active, fs_uniquifier) VALUES
        ('ann@acme.example', 'x', true, 'ann'), ('vic@acme.example', 'x', true, 'vic'),
        ('new@acme.example', NULL, true, 'new');
    INSERT INTO tenants (name, domain, time_zone, language) VALUES ('Acme', 'acme.example', 'UTC', 'en');
    INSERT INTO memberships (account_id, tenant_id, role) VALUES (1, 1, 'administrator'), (2, 1, 'viewer');
    INSERT INTO invitations (tenant_id, email, role, token_hash, invited_by, expires_at)
        VALUES (1, 'new@acme.example', 'viewer', 'x', 'Ann', now());
"""


def test_in_an_earlier_version_viewers_have_no_access_and_invited_people_no_account(empty: Flask) -> None:
    upgrade(MIGRATIONS, "0009")
    with owner_connection() as connection:
        connection.exec_driver_sql(PEOPLE)
    downgrade(MIGRATIONS, "0008")
    upgrade(MIGRATIONS)
    members = db.session.scalars(select(Membership)).all()
    assert [(member.account.email, member.role) for member in members] == [("ann@acme.example", "administrator")]
    assert set(db.session.scalars(select(Account.email))) == {"ann@acme.example", "vic@acme.example"}


CONNECTED = """
    INSERT INTO tenants (name, domain, time_zone, language) VALUES ('Acme', 'acme.example', 'UTC', 'en');
    INSERT INTO mail_servers (tenant_id, provider, host, port, encryption, auth_mode, sender_email, shared)
        VALUES (1, 'smtp', 'smtp.gmail.com', 587, 'starttls', 'oauth', 'pbx@acme.example', false),
            (NULL, 'smtp', 'mail.pbx.example', 25, 'none', 'none', 'pbx@pbx.example', true);
    INSERT INTO oauth_connections (tenant_id, provider, grant_type) VALUES (1, 'google', 'authorization_code');
"""


def test_a_mail_server_that_an_earlier_version_cannot_sign_in_to_is_removed(empty: Flask) -> None:
    upgrade(MIGRATIONS, "0008")
    with owner_connection() as connection:
        connection.exec_driver_sql(CONNECTED)
    downgrade(MIGRATIONS, "0007")
    with owner_connection() as connection:
        hosts = connection.exec_driver_sql("SELECT host FROM mail_servers").scalars().all()
    assert hosts == ["mail.pbx.example"]
    upgrade(MIGRATIONS)


QUIET = """
    INSERT INTO tenants (name, domain, time_zone, language) VALUES ('Acme', 'acme.example', 'UTC', 'en');
    INSERT INTO recipients (tenant_id, email, queues, quiet_days, quiet_from, quiet_until)
        VALUES (1, 'ops@acme.example', '{8000}', '{0,6}', '22:00', '07:00');
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
        VALUES (gen_random_uuid(), 1, 'one', 'queue.call_lost', now(), sha256('one'), '{}');
    INSERT INTO deliveries
        (id, tenant_id, event_id, audience, message_id, status, reason, attempts, expires_at, held_until)
        SELECT gen_random_uuid(), 1, id, 'recipients', '<one@portal>', 'held', 'quiet_hours', 0, now(), now()
        FROM events;
"""


def test_without_quiet_hours_what_they_held_waits_for_a_person(empty: Flask) -> None:
    upgrade(MIGRATIONS)
    with owner_connection() as connection:
        connection.exec_driver_sql(QUIET)
    script = ScriptDirectory(MIGRATIONS).get_revision("0013")
    assert script is not None
    downgrade(MIGRATIONS, str(script.down_revision))
    with owner_connection() as connection:
        assert connection.exec_driver_sql("SELECT status, reason FROM deliveries").all() == [("held", "throttled")]
    upgrade(MIGRATIONS)
    with every_tenant():
        recipient = db.session.scalars(select(Recipient)).one()
        assert (recipient.queues, recipient.quiet_hours, recipient.urgent_event_types) == ([], None, [])


FAILING = """
    INSERT INTO mail_servers (provider, host, port, encryption, auth_mode, sender_email, shared, rejected_at)
        VALUES ('smtp', 'mail.pbx.example', 25, 'none', 'none', 'pbx@pbx.example', true, '2026-11-20 10:00Z');
"""


def test_a_mail_server_that_was_rejected_has_been_failing_since_then(empty: Flask) -> None:
    upgrade(MIGRATIONS, "0008")
    with owner_connection() as connection:
        connection.exec_driver_sql(FAILING)
    upgrade(MIGRATIONS)
    with every_tenant():
        server = db.session.scalars(select(MailServer)).one()
    assert server.failing_since == server.last_failed_at == server.rejected_at


SEEN = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries)"


@pytest.mark.parametrize("revision", ["0018", "0019"])
def test_rows_are_seen_in_their_own_scope_only(empty: Flask, revision: str) -> None:
    upgrade(MIGRATIONS, "0001")
    with owner_connection() as connection:
        connection.exec_driver_sql(DATA_BY_REVISION["0001"])
    upgrade(MIGRATIONS)
    downgrade(MIGRATIONS, revision)
    seen = {}
    for scope in ("", "0", "1", "2"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql(SET_SCOPE, {"scope": scope})
            seen[scope] = tuple(connection.exec_driver_sql(SEEN).one())
    assert seen == {"": (0, 0), "0": (1, 1), "1": (1, 1), "2": (0, 0)}


def test_they_are_one_line_of_numbers() -> None:
    revisions = [script.revision for script in ScriptDirectory(MIGRATIONS).walk_revisions()][::-1]
    assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]


def test_every_constraint_has_a_name() -> None:
    for table in Base.metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"{table.name}: {constraint}"


def test_health_tells_of_a_schema_that_is_not_current(empty: Flask) -> None:
    answer = empty.test_client().get("/healthz")
    assert answer.status_code == 503
    assert "schema" in answer.get_json()["reason"]
    upgrade(MIGRATIONS)
    assert empty.test_client().get("/healthz").status_code == 200
