"""The doctor finds nothing wrong with a healthy portal, and says what is wrong with a broken one, and what to do."""

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from portal.doctor import checkup, database_checks
from portal.doctor.diagnoses import Diagnosis, State, Topic, examine, known_secrets
from tests import pgbouncer
from tests.clusters import KEY, LOGIN, OWNER, PASSWORD
from tests.conftest import TEST_SECRET, close_connections
from tests.doctor.conftest import DATABASE, MAIL_PASSWORD, Portal
from tests.processes import wait_for
from tests.wrong_clock import set_host_clock

pytestmark = pytest.mark.slow

OTHER_KEY = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="


def is_seen(diagnosis: Diagnosis, name: str, state: State, seen: str, advice: str) -> bool:
    """Return whether this is the diagnosis. An assertion shows what it is otherwise."""
    assert (diagnosis.name, diagnosis.state) == (name, state), diagnosis
    assert seen in diagnosis.seen, diagnosis
    assert advice in diagnosis.advice, diagnosis
    return True


def test_a_healthy_portal(portal: Portal) -> None:
    diagnoses = portal.examine()
    states = {name: diagnosis.state for name, diagnosis in diagnoses.items() if diagnosis.state is not State.OK}
    assert states == {"single sign-on": State.SKIPPED}, diagnoses
    assert not portal.peer.messages
    assert portal.peer.conversations[-1].signed_in_as == "mailer"
    text, data = checkup.as_text(list(diagnoses.values())), json.loads(checkup.as_json(list(diagnoses.values())))
    assert text.endswith(f"{len(diagnoses) - 1} ok, 1 skipped")
    assert data["ok"]
    assert [check["name"] for check in data["checks"]] == list(diagnoses)
    assert {"name", "state", "seen", "advice"} == set(data["checks"][0])


def test_no_finding_has_a_secret(portal: Portal) -> None:
    app = portal.app()
    secrets = [*known_secrets(portal.settings), MAIL_PASSWORD]
    assert {PASSWORD, TEST_SECRET, KEY[2:]} <= set(secrets)

    def quote_secrets() -> Iterator[Diagnosis]:
        yield Diagnosis(
            "quotes", State.FAILED, f"connection failed: {portal.settings.database_url}", f"Not {TEST_SECRET}"
        )

    (diagnosis,) = examine(app, [Topic(("quotes",), quote_secrets)])
    assert not [secret for secret in secrets if secret in f"{diagnosis}"], diagnosis
    portal.peer.script = {"auth": f"535 5.7.8 not {MAIL_PASSWORD}"}
    wrong = portal.cluster.url(DATABASE, password="Another~Geheim+4730")
    for found in map(str, (portal.examine(), portal.examine(database_url=wrong))):
        assert not [secret for secret in (*secrets, "Another~Geheim+4730") if secret in found]
    close_connections(app)


def test_checks_are_bounded_and_do_not_depend_on_each_other(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One check hangs, one crashes, one says nothing: the others are there, in time."""
    never, hangs = threading.Event(), threading.Event()
    join = threading.Thread.join

    def join_what_is_slow(examination: threading.Thread, seconds: float) -> None:
        wait_for(lambda: hangs.is_set() if "before" in examination.name else not examination.is_alive())
        join(examination, seconds)

    monkeypatch.setattr("portal.doctor.diagnoses._Examination.join", join_what_is_slow)

    def hang() -> Iterator[Diagnosis]:
        yield Diagnosis("before", State.OK, "Seen.")
        hangs.set()
        never.wait()

    def crash() -> Iterator[Diagnosis]:
        raise ZeroDivisionError
        yield

    app, began_at = portal.app(), time.monotonic()
    topics = (
        Topic(("before", "hangs", "after"), hang),
        Topic(("crashes", "next"), crash),
        Topic(("silent",), lambda: ()),
        Topic(("works",), lambda: [Diagnosis("works", State.OK, "Seen.")]),
    )
    found = {diagnosis.name: diagnosis for diagnosis in examine(app, topics, 0.5)}
    assert time.monotonic() - began_at < 30
    assert [diagnosis.state for diagnosis in found.values()] == [
        *(State.OK, State.FAILED, State.SKIPPED, State.FAILED, State.SKIPPED, State.SKIPPED, State.OK)
    ]
    assert "ZeroDivisionError" in found["crashes"].seen
    never.set()


# Settings, keys and files


def test_plain_http_is_seen(portal: Portal) -> None:
    diagnoses = portal.examine(portal_url="http://portal.invalid")
    assert is_seen(diagnoses["settings"], "settings", State.FAILED, "without encryption", "proxy with TLS")
    assert is_seen(diagnoses["portal's name"], "portal's name", State.FAILED, "is not found", "DNS")


def test_development_and_a_weak_secret_key_are_seen(portal: Portal) -> None:
    diagnoses = portal.examine(portal_env="development", secret_key=SecretStr("secret"))
    assert is_seen(diagnoses["settings"], "settings", State.WARNING, "development", "PORTAL_ENV=production")
    assert is_seen(diagnoses["secret key"], "secret key", State.FAILED, "short", "Replacing the secret key")


def test_an_encryption_key_that_is_not_random_is_seen(portal: Portal) -> None:
    diagnosis = portal.worst(encryption_keys=SecretStr(f"{KEY},2:{'A' * 43}="))
    assert is_seen(diagnosis, "encryption keys", State.FAILED, "The key 2", "rotate")


def test_a_missing_encryption_key_is_seen(portal: Portal) -> None:
    diagnoses = portal.examine(encryption_keys=SecretStr(OTHER_KEY))
    lacks = "ENCRYPTION_KEYS lacks the key 1, which encrypts 1 secret."
    assert is_seen(diagnoses["stored secrets"], "stored secrets", State.FAILED, lacks, "Add that key")
    assert is_seen(diagnoses["mail server"], "mail server", State.FAILED, "cannot be decrypted", "ENCRYPTION_KEYS")


def test_another_key_with_the_same_id_is_seen(portal: Portal) -> None:
    diagnoses = portal.examine(encryption_keys=SecretStr(OTHER_KEY.replace("2:", "1:")))
    column = "mail_servers.password_encrypted"
    assert is_seen(diagnoses["stored secrets"], "stored secrets", State.FAILED, column, "Put the key")


def test_an_old_key_that_is_still_needed_is_seen(portal: Portal) -> None:
    diagnosis = portal.worst(encryption_keys=SecretStr(f"{OTHER_KEY},{KEY}"))
    assert is_seen(
        diagnosis, "stored secrets", State.WARNING, "The earlier key 1 still encrypts 1 secret.", "secrets rotate"
    )


def test_old_password_hashes_are_seen(portal: Portal) -> None:
    portal.run("""
        INSERT INTO accounts (email, password, active, fs_uniquifier)
        VALUES ('root@pbx.example', 'secret-key:$argon2id$', true, 'x')
    """)
    diagnosis = portal.worst()
    assert is_seen(diagnosis, "stored secrets", State.WARNING, "needed for 1 password.", "SECRET_KEY_FALLBACKS")


def test_a_file_with_secrets_that_others_can_read_is_seen(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    file = portal.settings.var_dir / "secrets.json"
    file.write_text("{}")
    file.chmod(0o644)
    assert is_seen(portal.worst(), "files", State.FAILED, "mode 0644", f"chmod 600 {file}")
    file.chmod(0o600)
    settings = portal.settings.var_dir / "portal.env"
    settings.write_text("SSO_LABEL='x'")
    settings.chmod(0o640)
    monkeypatch.setenv("PORTAL_ENV_FILE", str(settings))
    assert is_seen(portal.worst(), "files", State.FAILED, "mode 0640", f"chmod 600 {settings}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_with_secrets_that_belongs_to_another_user_is_seen(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = portal.settings.var_dir / "portal.env", portal.settings.var_dir
    file.write_text("SSO_LABEL='x'")
    file.chmod(0o600)
    os.chown(file, 10001, -1)
    monkeypatch.setenv("PORTAL_ENV_FILE", str(file))
    assert is_seen(
        portal.worst(), "files", State.FAILED, "another user of this machine (ID 10001)", f"chown root {file}"
    )
    owner = folder.stat().st_uid
    os.chown(folder, 10001, -1)  # the portal's user
    try:
        assert portal.examine()["files"].state is State.OK
    finally:
        os.chown(folder, owner, -1)


def test_a_disk_that_cannot_be_read_is_seen(portal: Portal) -> None:
    diagnosis = portal.worst(database_disk=portal.settings.var_dir / "missing")
    assert is_seen(diagnosis, "database disk", State.FAILED, "cannot be read", "DATABASE_DISK")


# The database


def test_an_unreachable_database_keeps_no_other_check_from_its_result(portal: Portal) -> None:
    diagnoses = portal.examine(database_url="postgresql+psycopg://portal@127.0.0.1:1/portal")
    assert is_seen(diagnoses["database"], "database", State.FAILED, "refused", "Start Postgres")
    states = {name: diagnosis.state for name, diagnosis in diagnoses.items()}
    skipped = {name for name, state in states.items() if state is State.SKIPPED}
    assert skipped == {
        *(set(database_checks.CHECKS) - {"database"}),
        *("stored secrets", "worker", "alerts", "mail server", "sender's domain", "single sign-on"),
    }
    assert diagnoses["worker"].seen == "The database does not respond."
    assert {states[name] for name in ("certificate", "reverse proxy", "portal's name", "files")} == {State.OK}


def test_a_frozen_database_is_seen_in_time(portal: Portal) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"postgresql+psycopg://portal@127.0.0.1:{silent.getsockname()[1]}/portal"
        began_at = time.monotonic()
        diagnoses = portal.examine(database_url=url)
        assert time.monotonic() - began_at < 25
    assert is_seen(diagnoses["database"], "database", State.FAILED, "timeout", "Start Postgres")
    assert diagnoses["certificate"].state is State.OK


@pytest.mark.parametrize(
    ("database", "user", "password", "seen", "advice"),
    [
        (DATABASE, "portal", "wrong", "password authentication failed", "Correct the user and the password"),
        ("missing", "portal", PASSWORD, 'database "missing" does not exist', "Create it"),
    ],
)
def test_a_database_that_rejects_the_login_is_seen(
    portal: Portal, database: str, user: str, password: str, seen: str, advice: str
) -> None:
    url = portal.cluster.url(database, user, password).replace("postgresql:", "postgresql+psycopg:")
    assert is_seen(portal.examine(database_url=url)["database"], "database", State.FAILED, seen, advice)


def test_a_url_that_is_not_valid_is_not_quoted(portal: Portal) -> None:
    diagnoses = portal.examine(database_url="postgresql+psycopg://portal:Geheim/4731@127.0.0.1/portal", serves=False)
    assert diagnoses["database"].state is State.FAILED
    assert "4731" not in str(diagnoses)


def test_an_old_postgres_is_seen(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "OLDEST_VERSION", 99)
    assert is_seen(portal.worst(), "database", State.FAILED, "has version", "Move to version 99")


def test_a_database_without_utf8_is_seen(portal: Portal) -> None:
    portal.cluster.run("DROP DATABASE IF EXISTS latin")
    portal.cluster.run("CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url = portal.cluster.url("latin").replace("postgresql:", "postgresql+psycopg:")
    diagnoses = portal.examine(database_url=url, migration_database_url=None)
    assert is_seen(diagnoses["database"], "database", State.FAILED, "SQL_ASCII", "ENCODING 'UTF8'")
    assert is_seen(diagnoses["schema"], "schema", State.FAILED, "no tables", "pbx-portal upgrade")


def test_a_missing_role_is_seen(portal: Portal) -> None:
    portal.cluster.run("ALTER ROLE pbx_portal RENAME TO renamed")
    try:
        diagnosis = portal.examine()["database roles"]
    finally:
        portal.cluster.run("ALTER ROLE renamed RENAME TO pbx_portal")
    assert is_seen(diagnosis, "database roles", State.FAILED, "no role pbx_portal", "pbx-portal upgrade")


def test_a_login_that_may_not_become_the_role_is_seen(portal: Portal) -> None:
    portal.cluster.run("REVOKE pbx_portal FROM portal")
    try:
        diagnosis = portal.examine()["database roles"]
    finally:
        portal.cluster.run("GRANT pbx_portal TO portal")
    assert is_seen(diagnosis, "database roles", State.FAILED, "may not become", 'GRANT pbx_portal TO "portal"')


def test_a_login_that_owns_the_tables_is_seen(portal: Portal) -> None:
    portal.cluster.run(f"GRANT pbx_portal TO {OWNER}")
    url = portal.settings.migration_database_url
    diagnosis = portal.worst(database_url=url)
    assert is_seen(diagnosis, "database roles", State.WARNING, "owns the tables", "a login with no other rights")


def test_a_role_that_owns_tables_is_seen(portal: Portal) -> None:
    portal.run("ALTER TABLE tenants OWNER TO pbx_portal")
    assert is_seen(portal.worst(), "database roles", State.FAILED, "owns tables", "REASSIGN OWNED")


def test_a_role_beyond_row_level_security_is_seen(portal: Portal) -> None:
    portal.cluster.run("ALTER ROLE pbx_portal BYPASSRLS")
    try:
        diagnoses = portal.examine()
    finally:
        portal.cluster.run("ALTER ROLE pbx_portal NOBYPASSRLS")
    assert is_seen(diagnoses["database roles"], "database roles", State.FAILED, "BYPASSRLS", "NOBYPASSRLS")
    seen = "mail_servers"
    assert is_seen(diagnoses["row level security"], "row level security", State.FAILED, seen, "policy")


@pytest.mark.parametrize("switch", ["DISABLE", "NO FORCE"])
def test_row_level_security_that_is_off_is_seen(portal: Portal, switch: str) -> None:
    portal.run(f"ALTER TABLE recipients {switch} ROW LEVEL SECURITY")
    seen = "not in force for recipients"
    assert is_seen(portal.worst(), "row level security", State.FAILED, seen, "ALTER TABLE recipients ENABLE")


def test_another_policy_that_shows_rows_is_seen(portal: Portal) -> None:
    portal.run("CREATE POLICY everyone ON mail_servers USING (true)")
    seen = "mail_servers"
    assert is_seen(portal.worst(), "row level security", State.FAILED, seen, "Drop every policy but tenant_in_scope")


def test_the_login_of_upgrades_is_checked(portal: Portal) -> None:
    other = portal.cluster.url("healthy", OWNER)
    diagnosis = portal.worst(migration_database_url=other)
    assert is_seen(diagnosis, "owner's login", State.FAILED, "different databases", "the same one")
    diagnosis = portal.worst(migration_database_url=portal.settings.database_url)
    assert is_seen(diagnosis, "owner's login", State.FAILED, "owned by portal_owner", "Put the login portal_owner")
    diagnosis = portal.worst(migration_database_url=portal.cluster.url(DATABASE, OWNER, "wrong"))
    assert is_seen(diagnosis, "owner's login", State.FAILED, "authentication failed", "MIGRATION_DATABASE_URL")


@pytest.mark.parametrize(
    ("revision", "seen", "advice"), [("0015", "older than the portal", "upgrade"), ("9999", "newer version", "Install")]
)
def test_another_schema_is_seen(portal: Portal, revision: str, seen: str, advice: str) -> None:
    portal.run(f"UPDATE alembic_version SET version_num = '{revision}'")
    assert is_seen(portal.worst(), "schema", State.FAILED, seen, advice)


def test_too_few_connections_are_seen(portal: Portal) -> None:
    portal.cluster.run("ALTER ROLE portal CONNECTION LIMIT 20")
    try:
        diagnosis = portal.worst()
    finally:
        portal.cluster.run("ALTER ROLE portal CONNECTION LIMIT -1")
    assert is_seen(diagnosis, "connections", State.FAILED, "allows 20 connections", "limit of the login")


def test_a_clock_that_is_wrong_is_seen(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, state in ((timedelta(seconds=5), State.WARNING), (timedelta(minutes=-3), State.FAILED)):
        with monkeypatch.context() as patch:
            set_host_clock(patch, error)
            diagnosis = portal.examine()["clock"]
        assert is_seen(diagnosis, "clock", state, "differ by", "NTP")


# Worker and alerts


def test_a_worker_that_is_not_there_is_seen(portal: Portal) -> None:
    portal.run("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    assert is_seen(portal.worst(), "worker", State.FAILED, "No worker is running. The last one", "pbx-portal worker")


def test_emails_that_are_late_are_seen(portal: Portal) -> None:
    portal.run("""
        INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
        SELECT gen_random_uuid(), id, 'late', 'queue.call_lost', now(), decode(repeat('00', 32), 'hex'), '{}'
        FROM tenants WHERE id > 0;
        INSERT INTO deliveries
            (id, tenant_id, event_id, audience, message_id, status, attempts, next_attempt_at, expires_at)
        SELECT id, tenant_id, id, 'recipients', '<x@localhost>', 'deferred', 1,
            now() - interval '1 hour', now() + interval '1 day'
        FROM events
    """)
    assert is_seen(portal.worst(), "worker", State.WARNING, "1 email overdue", "another worker")


def test_alerts_of_the_system_and_of_tenants_are_seen(portal: Portal) -> None:
    portal.run("""
        INSERT INTO api_keys (tenant_id, name, key_hash, prefix, expires_at)
        SELECT id, 'PBX', decode(repeat('00', 32), 'hex'), 'pbx_', now() + '3 days' FROM tenants WHERE id > 0
    """)
    assert is_seen(portal.worst(), "alerts", State.WARNING, "Tenants have alerts: expiry (1)", "administrators")
    portal.run("UPDATE api_keys SET tenant_id = NULL")
    assert is_seen(portal.worst(), "alerts", State.WARNING, "expires", "overview")


# A pooler in front


@pytest.mark.skipif(not pgbouncer.is_installed(), reason="PgBouncer is not installed")
@pytest.mark.parametrize("options", ["", "ignore_startup_parameters = options"])
def test_a_pooler_is_seen(portal: Portal, tmp_path: Path, options: str) -> None:
    with pgbouncer.running(portal.cluster.url(DATABASE), tmp_path, options) as url:
        diagnoses = portal.examine(database_url=url, migration_database_url=None)
    assert is_seen(diagnoses["connection pooler"], "connection pooler", State.FAILED, "PgBouncer", "name Postgres")
    expected = f"Statements run as {LOGIN}" if options else "unsupported startup parameter"
    assert expected in diagnoses["database roles"].seen
