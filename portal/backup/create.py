"""Makes a backup: one snapshot of the database, while the portal runs."""

import hashlib
import hmac
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final
from zipfile import ZipFile

import psycopg
from flask import current_app
from psycopg import sql

from portal import config, crypto
from portal.backup import BackupError, archive, postgres_tools
from portal.backup.archive import FORMAT, Description
from portal.config import Settings
from portal.key_rotation import encrypted_columns

JOBS: Final = "procrastinate_*"  # they only wake workers: see `deliveries.worker`
OF_THIS_MACHINE: Final = {
    *("database_url", "migration_database_url", "var_dir", "database_disk", "mail_ca_file", "demo_mail_dir"),
}
ALWAYS: Final = {"secret_key", "encryption_keys"}  # in development they are in a file
PORTAL_TABLES: Final = """
    SELECT relname, pg_has_role(relowner, 'USAGE') FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'procrastinate\\_%' ORDER BY 1
"""
# Who has rights to the tables, apart from their owner and everyone.
ROLES: Final = """
    SELECT DISTINCT rolname FROM pg_class, aclexplode(relacl) AS granted JOIN pg_roles ON pg_roles.oid = grantee
    WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner ORDER BY 1
"""


def create(target: Path, passphrase: str | None) -> Description:
    """Write a backup to this file. With a passphrase the settings are in it, encrypted.

    Raises:
        BackupError: this login may not read everything, pg_dump is missing, or it failed.
        OSError: the file cannot be written.
        psycopg.OperationalError: the database does not respond.
    """
    url = owner_url()
    with postgres_tools.connect(url) as connection:
        tools = postgres_tools.find(connection.info.server_version // 10_000)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            (snapshot,) = _row(connection, "SELECT pg_export_snapshot()")  # valid until the transaction ends
            described = _describe(connection)
            with archive.writing(target) as file:
                archive.write_description(file, described)
                if passphrase:
                    archive.write_settings(file, settings_of(config.current()), passphrase)
                _dump(tools / "pg_dump", url, snapshot, file)
    return described


def owner_url() -> str:
    """Return the URL of the database, as the owner of its tables."""
    url = config.current().migration_database_url or current_app.config["SQLALCHEMY_DATABASE_URI"]
    return str(url).replace("+psycopg", "", 1)


def _describe(connection: psycopg.Connection[Any]) -> Description:
    tables = connection.execute(PORTAL_TABLES).fetchall()
    if ("alembic_version",) not in {(name,) for name, _ in tables}:
        raise BackupError("The database has no tables of the portal.")
    if not all(may_read for _, may_read in tables):
        raise BackupError("This login does not own the tables. Set MIGRATION_DATABASE_URL to the login that does.")
    count = sql.SQL("SELECT count(*) FROM {}")
    (schema,) = _row(connection, "SELECT version_num FROM alembic_version")
    (created_at,) = _row(connection, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    return Description(
        format=FORMAT,
        portal_version=_portal_version(),
        schema=schema,
        postgres=connection.info.server_version // 10_000,
        created_at=created_at,
        portal_url=config.current().portal_url or "",
        keys=_needed_keys(connection, {name for name, _ in tables}),
        rows={name: _row(connection, count.format(sql.Identifier(name)))[0] for name, _ in tables},
        roles=tuple(name for (name,) in connection.execute(ROLES)),
    )


def _portal_version() -> str:
    try:
        return version("pbx-notification-portal")
    except PackageNotFoundError:
        return "a checkout"


def _needed_keys(connection: psycopg.Connection[Any], tables: set[str]) -> Mapping[str, str]:
    """Return the fingerprints of the encryption keys that stored secrets need; empty for one that is not known."""
    needed: set[str] = set()
    for column in encrypted_columns():
        if column.table.name in tables:
            names = {"column": sql.Identifier(column.name), "table": sql.Identifier(column.table.name)}
            statement = sql.SQL(
                "SELECT DISTINCT substring({column} FROM 1 FOR position('\\x00'::bytea IN {column}) - 1) FROM {table} "
                "WHERE {column} IS NOT NULL"
            )
            needed |= {key_id.decode(errors="replace") for (key_id,) in connection.execute(statement.format(**names))}
    ring = crypto.keyring().keys
    return {key_id: fingerprint(ring[key_id]) if key_id in ring else "" for key_id in sorted(needed)}


def fingerprint(key: bytes) -> str:
    """Return what tells an encryption key from others, and says nothing about it."""
    return hmac.digest(key, b"fingerprint of an encryption key", hashlib.sha256).hex()[:32]


def settings_of(settings: Settings) -> Mapping[str, str]:
    """Return the settings that were set, as environment variables, apart from those of this machine."""
    names = (settings.model_fields_set | ALWAYS) - OF_THIS_MACHINE
    values = {name.upper(): _as_text(getattr(settings, name)) for name in sorted(names)}
    return {name: value for name, value in values.items() if value}


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _dump(pg_dump: Path, url: str, snapshot: str, file: ZipFile) -> None:
    arguments = (
        *("--format=custom", "--no-password", "--lock-wait-timeout=60s", f"--snapshot={snapshot}"),
        *("--enable-row-security", f"--exclude-table-data={JOBS}", "--extension=plpgsql"),
    )
    with TemporaryFile() as errors, file.open(archive.DUMP, "w", force_zip64=True) as dump:
        with postgres_tools.start(pg_dump, url, *arguments, errors=errors, stdout=subprocess.PIPE) as process:
            assert process.stdout
            try:
                shutil.copyfileobj(process.stdout, dump)
            except OSError:  # the disk is full
                process.kill()
                raise
        if process.returncode != 0:
            raise BackupError(f"pg_dump failed: {postgres_tools.said(errors)}")


def _row(connection: psycopg.Connection[Any], statement: Any) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row
    return tuple(row)
