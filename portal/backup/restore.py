"""Restores a backup into an empty database, in one transaction, and checks that the portal can work with it."""

import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final
from zipfile import ZipFile

import psycopg
from alembic.script import ScriptDirectory
from flask import Flask, current_app
from flask_migrate import upgrade
from psycopg import sql

from portal import crypto, key_rotation
from portal.backup import BackupError, archive, postgres_tools
from portal.backup.archive import Description
from portal.backup.create import fingerprint, owner_url
from portal.database.engine import CONNECT_ARGS, ROLE
from portal.doctor import database_checks
from portal.doctor.connection_budget import Processes
from portal.doctor.diagnoses import Diagnosis, State, examine

# Objects of extensions may be there.
OBJECTS: Final = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relnamespace NOT IN (
            SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema'
        ) AND NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
    LIMIT 1
"""
OTHERS: Final = """
    SELECT usename, count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL GROUP BY usename
"""
DATABASE: Final = "SELECT current_database(), pg_postmaster_start_time()"
# Processes compare these numbers to know whether what they keep is still right. Each of them is now greater than any
# that a process can have seen: numbers grow by one with each change, and this one by a million each second.
RENEW_REVISIONS: Final = """
    DO $$ BEGIN
        IF to_regclass('public.settings_revisions') IS NOT NULL THEN
            INSERT INTO settings_revisions AS revision (tenant_id, number)
            VALUES (NULL, floor(extract(epoch FROM clock_timestamp()) * 1000000))
            ON CONFLICT (tenant_id) DO UPDATE SET number = greatest(revision.number + 1, EXCLUDED.number);
        END IF;
    END $$;
"""
# What the portal did after the backup is not known. Emails that it may have sent since are held until a person decides;
# nobody stays signed in, and no one-time address works, because sign-outs and uses are not known either.
HOLD: Final = """
    UPDATE delivery_recipients SET status = 'held'
    WHERE status IN ('pending', 'deferred') AND delivery_id IN (SELECT id FROM deliveries WHERE {unfinished});
    UPDATE deliveries SET status = replace(replace(status, 'pending', 'held'), 'deferred', 'held'),
        reason = 'may_have_been_sent', lease_until = NULL, next_attempt_at = NULL{held_until}
    WHERE {unfinished};
    DELETE FROM storms;
    DELETE FROM account_sessions;
    DELETE FROM provisioning_tokens;
"""
UNFINISHED: Final = "(lease_until IS NOT NULL OR next_attempt_at IS NOT NULL OR reason IS NOT NULL)"
HOLD_ALL: Final = f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'deliveries'::regclass AND attname = 'held_until') THEN
            {HOLD.format(unfinished=UNFINISHED, held_until=", held_until = NULL")}
        ELSE
            {HOLD.format(unfinished=UNFINISHED, held_until="")}
        END IF;
        IF to_regclass('release_requests') IS NOT NULL THEN
            DELETE FROM release_requests;
        END IF;
    END $$;
"""  # noqa: S608 (contains no input)
COUNT: Final = """
    DO $$ BEGIN
        IF (SELECT count(*) FROM {table}) <> {rows} THEN
            RAISE 'the table % has not the rows of the backup', {name};
        END IF;
    END $$;
"""
BEGIN: Final = "BEGIN;\n"
# pg_restore leaves the search path empty and row level security off.
PREPARE: Final = """
    SET search_path = public;
    SET row_security = on;
    SELECT set_config('portal.tenant', '0', false);
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the description of the backup, the emails that are held, the secrets that cannot be read."""

    description: Description
    held: int
    unreadable: int


def restore(app: Flask, source: Path, *, continues: bool, accepts_lost_secrets: bool) -> Restored:
    """Restore a backup. If nothing was sent after it (`continues`), its emails are sent and its sessions go on.

    Raises:
        BackupError: it was not restored, or the text says what is not right with what was.
        psycopg.OperationalError: the database does not respond.
    """
    url = owner_url()
    with archive.reading(source) as file:
        description = archive.read_description(file)
        _check_version(description)
        if not accepts_lost_secrets:
            _check_keys(description)
        with postgres_tools.connect(url) as connection:
            tools = _check_server(connection, description)
            _check_database(connection)
            _prepare_roles(connection, description)
        _check_login(url)
        _run(tools, url, file, description, continues=continues)
    if description.schema not in _heads():
        upgrade(app.extensions["migrate"].directory)
        with postgres_tools.connect(url) as connection:
            connection.execute(RENEW_REVISIONS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return _verify(app, url, description, accepts_lost_secrets=accepts_lost_secrets)


def _heads() -> Sequence[str]:
    return ScriptDirectory(current_app.extensions["migrate"].directory).get_heads()


def _check_version(description: Description) -> None:
    scripts = ScriptDirectory(current_app.extensions["migrate"].directory)
    if description.schema not in {script.revision for script in scripts.walk_revisions()}:
        raise BackupError(
            f"The backup is of a newer version of the portal: {description.portal_version}, with the schema "
            f"{description.schema}. Install that version, and restore it again."
        )


def _check_keys(description: Description) -> None:
    ring = crypto.keyring().keys
    missing = [key_id for key_id in description.keys if key_id not in ring]
    wrong = [
        key_id
        for key_id, known in description.keys.items()
        if key_id in ring and known not in {"", fingerprint(ring[key_id])}
    ]
    if missing or wrong:
        what = f"lacks the key {missing[0]}" if missing else f"has another key under the id {wrong[0]}"
        raise BackupError(
            f"ENCRYPTION_KEYS {what}, which stored secrets of this backup need. Add it: it is in the settings of the "
            "portal that was backed up. If it is lost, restore with --accept-lost-secrets: passwords of mail servers, "
            "signing secrets, connected mailboxes and second factors have to be entered again."
        )


def _check_server(connection: psycopg.Connection[Any], description: Description) -> Path:
    major = connection.info.server_version // 10_000
    if major < description.postgres:
        raise BackupError(
            f"The backup is of Postgres {description.postgres}, and this server is Postgres {major}. "
            f"Use Postgres {description.postgres} or newer."
        )
    (encoding,) = _row(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise BackupError(
            f"The database has the encoding {encoding}. Create it with ENCODING 'UTF8' TEMPLATE template0."
        )
    return postgres_tools.find(major)


def _check_database(connection: psycopg.Connection[Any]) -> None:
    if others := connection.execute(OTHERS).fetchall():
        who = ", ".join(f"{count} of {name}" for name, count in others)
        raise BackupError(
            f"Stop the portal first, web and workers: there are other connections to the database ({who})."
        )
    if found := connection.execute(OBJECTS).fetchone():
        raise BackupError(
            f"The database is not empty: it has {found[0]}. Restore into a new one: "
            "CREATE DATABASE portal OWNER portal_owner;"
        )


def _prepare_roles(connection: psycopg.Connection[Any], description: Description) -> None:
    """Create the roles that have rights to the tables. Logins and passwords are not part of a backup."""
    existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    missing = [name for name in sorted({*description.roles, ROLE}) if name not in existing]
    statements = [sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)) for name in missing]
    try:
        for statement in statements:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        commands = " ".join(f"{statement.as_string()};" for statement in statements)
        raise BackupError(f"Roles are missing. As a superuser: {commands}") from None
    except psycopg.ProgrammingError as error:
        raise BackupError(f"Nothing was restored: a role cannot be created. Postgres says: {error}") from None
    connection.commit()


def _check_login(url: str) -> None:
    """Check that the application reaches the same database in its role."""
    login_url = current_app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    try:
        with psycopg.connect(login_url, **CONNECT_ARGS) as login, psycopg.connect(url) as owner:
            is_same = _row(login, DATABASE) == _row(owner, DATABASE)
    except psycopg.OperationalError as error:
        problem = database_checks.without_role(error)
        raise BackupError(f"{problem.seen} {problem.advice}") from None
    if not is_same:
        raise BackupError("DATABASE_URL and MIGRATION_DATABASE_URL name different databases.")


def _run(tools: Path, url: str, file: ZipFile, description: Description, *, continues: bool) -> None:
    """Restore everything in one transaction. Without its last line Postgres undoes all of it."""
    with TemporaryFile() as errors, TemporaryFile() as restore_errors:
        psql = postgres_tools.start(
            *(tools / "psql", url, "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--file=-"),
            errors=errors,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with psql:
            assert psql.stdin
            try:
                psql.stdin.write(BEGIN.encode())
                psql.stdin.flush()
                _write_dump(tools / "pg_restore", file, psql.stdin, restore_errors)
                psql.stdin.write(_finish(description, continues=continues).encode())
                psql.stdin.close()
            except BrokenPipeError:
                pass  # it has stopped because of an error
            except BaseException:
                psql.kill()
                raise
        if psql.returncode != 0:
            raise BackupError(f"Nothing was restored. Postgres says: {postgres_tools.said(errors)}")


def _write_dump(pg_restore: Path, file: ZipFile, output: IO[bytes], errors: IO[bytes]) -> None:
    """Write the dump as SQL. Raise BackupError if it is damaged, and BrokenPipeError if psql has stopped."""
    command = [str(pg_restore), "--no-owner", "--no-publications", "--no-subscriptions", "--no-tablespaces", "--file=-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors) as process:  # noqa: S603 (ours)
        assert process.stdin
        try:
            with file.open(archive.DUMP) as dump, suppress(BrokenPipeError):  # it has stopped, and says why
                shutil.copyfileobj(dump, process.stdin)
                process.stdin.close()
        except archive.DAMAGED:
            process.kill()
            raise BackupError("Nothing was restored: the backup is damaged.") from None
    if process.returncode == -signal.SIGPIPE:
        raise BrokenPipeError
    if process.returncode != 0:
        text = postgres_tools.said(errors)
        raise BackupError(f"Nothing was restored: the backup is damaged. pg_restore says: {text}")


def _finish(description: Description, *, continues: bool) -> str:
    counts = [
        sql.SQL(COUNT).format(table=sql.Identifier(table), rows=sql.Literal(rows), name=sql.Literal(table)).as_string()
        for table, rows in description.rows.items()
    ]
    return "\n".join((PREPARE, *counts, "" if continues else HOLD_ALL, RENEW_REVISIONS, "COMMIT;\n"))


def _verify(app: Flask, url: str, description: Description, *, accepts_lost_secrets: bool) -> Restored:
    """Look at what was restored as the portal sees it. Raise BackupError if something is not right."""
    topic = database_checks.topic(Processes(1, 1))
    failed = [one for one in examine(app, [topic]) if one.state is State.FAILED and _is_about_data(one)]
    if failed:
        raise BackupError(
            f"The data was restored, but the portal cannot work with it. {failed[0].seen} {failed[0].advice}"
        )
    _, unreadable = key_rotation.read_stored()
    if unreadable and not accepts_lost_secrets:
        raise BackupError(
            f"The data was restored, but not all stored secrets can be decrypted ({unreadable.total()} of "
            f"{', '.join(unreadable)}). Correct ENCRYPTION_KEYS, and run `pbx-portal doctor`."
        )
    with postgres_tools.connect(url) as connection:
        held = _row(connection, "SELECT count(*) FROM deliveries WHERE reason = 'may_have_been_sent'")[0]
    return Restored(description, held, unreadable.total())


def _is_about_data(diagnosis: Diagnosis) -> bool:
    return diagnosis.name in {"database", "database roles", "owner's login", "schema", "row level security"}


def _row(connection: psycopg.Connection[Any], statement: Any) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row
    return tuple(row)
