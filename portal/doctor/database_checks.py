"""Checks of the database: reachable, version, roles, pooler, schema, row level security, connections, clock."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import psycopg
from alembic.script import ScriptDirectory
from flask import current_app
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from portal import config
from portal.database import pooler
from portal.database.engine import CONNECT_ARGS, ROLE, PostgresConnection
from portal.database.scope import TenantOwned
from portal.doctor.connection_budget import Processes, check_connections
from portal.doctor.diagnoses import Diagnosis, State, Topic
from portal.extensions import Base

OLDEST_VERSION: Final = 15
ANSWER_TIMEOUT: Final = 5.0  # seconds for a statement
MAX_DIFFERENCE, MUCH_DIFFERENCE = timedelta(seconds=2), timedelta(seconds=20)  # of two clocks
UPGRADE: Final = "Run `pbx-portal upgrade` with MIGRATION_DATABASE_URL."
CHECKS: Final = (
    *("database", "connection pooler", "database roles", "owner's login", "schema", "row level security"),
    *("connections", "clock"),
)
# By a part of Postgres's text.
ADVICE: Final = {
    "password authentication failed": "Correct the user and the password in {setting}.",
    "no password supplied": "Add the password to {setting}.",
    "no pg_hba.conf entry": "Allow this machine, user and database in pg_hba.conf, and reload Postgres.",
    "does not exist": "Create it as “Install” says, or correct {setting}.",
    "remaining connection slots": "Raise max_connections of Postgres, or run fewer processes.",
    "too many clients": "Raise max_connections of Postgres, or run fewer processes.",
    "too many connections": "Raise the connection limit of the role or the database.",
    "starting up": "Wait until Postgres has started.",
}
LOGIN: Final = """
    SELECT session_user AS login, current_user AS role,
        (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user) AS login_sees_all,
        (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %(role)s) AS role_sees_all,
        EXISTS (SELECT FROM pg_tables WHERE tableowner = %(role)s) AS role_owns,
        EXISTS (SELECT FROM pg_tables WHERE tableowner = session_user) AS login_owns
"""
# The server's start tells it from others.
DATABASE: Final = "SELECT current_database(), pg_postmaster_start_time()"
OWNER: Final = """
    SELECT tableowner, pg_has_role(tableowner, 'USAGE') FROM pg_tables
    WHERE schemaname = 'public' AND tablename = 'alembic_version'
"""
PROTECTION: Final = """
    SELECT relname,
        relrowsecurity AND relforcerowsecurity AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY (%(tables)s)
"""


def _check(processes: Processes) -> Iterator[Diagnosis]:
    """Yield the diagnoses. Without the database or its role, the others are not reached."""
    url = current_app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    try:
        plain = _connect(url)
    except psycopg.Error as error:
        yield unreachable("database", "DATABASE_URL", error)
        return
    with plain:
        yield _version(plain)
        yield _pooler(plain)
    try:
        connection = _connect(url, **CONNECT_ARGS)
    except psycopg.Error as error:
        yield without_role(error)
        return
    with connection:
        connection.execute("SELECT set_config('portal.tenant', '', false)")
        yield _roles(connection)
        yield _owner_login(connection)
        schema = _schema(connection)
        yield schema
        if schema.state is not State.OK:
            return
        yield _row_level_security(connection)
        yield check_connections(connection, "connections", processes)
        yield _clock(connection)


def _connect(url: str, **options: Any) -> psycopg.Connection[Any]:
    connection = PostgresConnection.connect(url, autocommit=True, **{"connect_timeout": 5, **options})
    connection.answer_timeout = ANSWER_TIMEOUT
    return connection


def unreachable(name: str, setting: str, error: psycopg.Error) -> Diagnosis:
    """Return the diagnosis about a database that cannot be connected to. Its password is not in it."""
    if not isinstance(error, psycopg.OperationalError):  # its text could quote the URL
        return Diagnosis(
            name, State.FAILED, f"{setting} is not valid.", "Write it as postgresql://user:password@host/name."
        )
    seen = _text(error)
    advice = next((advice for part, advice in ADVICE.items() if part in seen), "")
    default = "Start Postgres, let it accept connections from this machine, and check {setting}."
    return Diagnosis(
        name, State.FAILED, f"Postgres was not reached: {seen}", (advice or default).format(setting=setting)
    )


def _text(error: psycopg.Error) -> str:
    """Return what Postgres says, in one line."""
    return str(error).strip().splitlines()[0].rpartition("FATAL:")[2].strip().rstrip(".") + "."


def _version(connection: psycopg.Connection[Any]) -> Diagnosis:
    name, version = "database", connection.info.server_version // 10_000
    if version < OLDEST_VERSION:
        seen = f"Postgres has version {version}."
        return Diagnosis(name, State.FAILED, seen, f"Move to version {OLDEST_VERSION} or newer.")
    (encoding,) = _row(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        advice = "Create the database again with ENCODING 'UTF8' TEMPLATE template0, and restore a backup into it."
        return Diagnosis(name, State.FAILED, f"The database has the encoding {encoding}.", advice)
    return Diagnosis(name, State.OK, f"Postgres {version} responds.")


def _pooler(connection: psycopg.Connection[Any]) -> Diagnosis:
    name = "connection pooler"
    if not pooler.is_between(connection):
        return Diagnosis(name, State.OK, "The portal is connected to Postgres directly.")
    return Diagnosis(name, State.FAILED, pooler.SEEN, pooler.ADVICE)


def without_role(error: psycopg.Error) -> Diagnosis:
    """Return the diagnosis about a login that cannot be used as the application."""
    name, seen = "database roles", _text(error)
    if f'role "{ROLE}" does not exist' in seen:
        return Diagnosis(name, State.FAILED, f"There is no role {ROLE}.", UPGRADE)
    if "permission denied" in seen:
        login = conninfo_to_dict(current_app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)).get("user")
        seen = f"The login {login} may not become {ROLE}."
        return Diagnosis(name, State.FAILED, seen, f'As a superuser: GRANT {ROLE} TO "{login}";')
    return Diagnosis(
        name, State.FAILED, f"The role {ROLE} cannot be used: {seen}", "Check the roles as “Install” says."
    )


def _roles(connection: psycopg.Connection[Any]) -> Diagnosis:
    name = "database roles"
    login, role, login_sees_all, role_sees_all, role_owns, login_owns = _row(connection, LOGIN, role=ROLE)
    if role != ROLE:
        seen = f"Statements run as {role}, and not as {ROLE}."
        return Diagnosis(name, State.FAILED, seen, "Let nothing between the portal and Postgres drop its options.")
    if role_sees_all:
        seen = f"{ROLE} is a superuser or has BYPASSRLS: nothing separates the tenants."
        return Diagnosis(name, State.FAILED, seen, f"As a superuser: ALTER ROLE {ROLE} NOSUPERUSER NOBYPASSRLS;")
    if role_owns:
        seen = f"{ROLE} owns tables, so it can change them."
        return Diagnosis(name, State.FAILED, seen, f"As a superuser: REASSIGN OWNED BY {ROLE} TO portal_owner;")
    if (login_sees_all or login_owns) and not config.current().uses_embedded_postgres:
        what = "is a superuser or has BYPASSRLS" if login_sees_all else "owns the tables"
        advice = f"Use a login with no other rights than {ROLE} in DATABASE_URL, as “Install” says."
        return Diagnosis(name, State.WARNING, f"The login {login} {what}.", advice)
    return Diagnosis(name, State.OK, f"The login {login} works as {ROLE}, which owns nothing.")


def _owner_login(connection: psycopg.Connection[Any]) -> Diagnosis:
    name, setting, url = "owner's login", "MIGRATION_DATABASE_URL", config.current().migration_database_url
    if not url:
        return Diagnosis(name, State.SKIPPED, f"{setting} is not set here, as it should be for web and worker.")
    try:
        owner = _connect(url.replace("+psycopg", "", 1))
    except psycopg.Error as error:
        return unreachable(name, setting, error)
    with owner:
        if _row(owner, DATABASE) != _row(connection, DATABASE):
            seen = f"{setting} and DATABASE_URL name different databases."
            return Diagnosis(name, State.FAILED, seen, "Let both name the same one.")
        found = owner.execute(OWNER).fetchone()
        if found and not found[1]:
            seen = f"The tables are owned by {found[0]}, and the login in {setting} may not change them."
            return Diagnosis(name, State.FAILED, seen, f"Put the login {found[0]} into {setting}.")
    return Diagnosis(name, State.OK, f"The login in {setting} may change the tables.")


def _schema(connection: psycopg.Connection[Any]) -> Diagnosis:
    name, scripts = "schema", ScriptDirectory(current_app.extensions["migrate"].directory)
    try:
        revisions = {revision for (revision,) in connection.execute("SELECT version_num FROM alembic_version")}
    except psycopg.errors.UndefinedTable:
        return Diagnosis(name, State.FAILED, "The database has no tables.", UPGRADE)
    except psycopg.errors.InsufficientPrivilege:
        return Diagnosis(name, State.FAILED, f"{ROLE} may not read the tables.", "Restore a backup, or grant it again.")
    known = {script.revision for script in scripts.walk_revisions()}
    if revisions == set(scripts.get_heads()):
        return Diagnosis(name, State.OK, f"The schema is current ({', '.join(sorted(revisions))}).")
    if revisions - known:
        seen = f"The schema ({', '.join(sorted(revisions - known))}) is of a newer version of the portal."
        return Diagnosis(name, State.FAILED, seen, "Install that version here too.")
    return Diagnosis(
        name, State.FAILED, f"The schema is older than the portal ({', '.join(sorted(revisions))}).", UPGRADE
    )


def _row_level_security(connection: psycopg.Connection[Any]) -> Diagnosis:
    """Look at the tables' settings, and whether rows are really hidden while no tenant is in scope."""
    name, tables = "row level security", tenant_tables()
    protected = {table for table, is_protected in connection.execute(PROTECTION, {"tables": tables}) if is_protected}
    if bare := sorted({*tables} - protected):
        seen = f"Row level security is not in force for {', '.join(bare)}."
        advice = "; ".join(
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY" for table in bare[:3]
        )
        return Diagnosis(name, State.FAILED, seen, f"As the tables' owner: {advice}. Or restore a backup.")
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {})")
    visible = [table for table in tables if _row(connection, statement.format(sql.Identifier(table)))[0]]
    if visible:
        seen = f"Rows of tenants are visible outside their scope: {', '.join(visible)}."
        return Diagnosis(name, State.FAILED, seen, "Drop every policy but tenant_in_scope from these tables.")
    return Diagnosis(name, State.OK, f"It hides the rows of other tenants in all {len(tables)} tables.")


def tenant_tables() -> Sequence[str]:
    """Return the names of the tables whose rows belong to tenants."""
    owned = {mapper.local_table for mapper in Base.registry.mappers if issubclass(mapper.class_, TenantOwned)}
    return [table.name for table in Base.metadata.sorted_tables if table in owned]


def _clock(connection: psycopg.Connection[Any]) -> Diagnosis:
    name, began_at = "clock", time.monotonic()
    (database_time,) = _row(connection, "SELECT clock_timestamp()")
    host_time = datetime.now(UTC) - timedelta(seconds=(time.monotonic() - began_at) / 2)
    difference = abs(host_time - database_time)
    if difference <= MAX_DIFFERENCE:
        return Diagnosis(name, State.OK, "The clocks of this machine and of the database agree.")
    seconds = f"{difference.total_seconds():,.0f} seconds"
    seen = f"The clocks of this machine and of the database differ by {seconds}."
    state = State.FAILED if difference > MUCH_DIFFERENCE else State.WARNING
    return Diagnosis(name, state, seen, "Let both machines set their clocks by NTP (chrony or systemd-timesyncd).")


def _row(connection: psycopg.Connection[Any], statement: Any, **values: Any) -> tuple[Any, ...]:
    row = connection.execute(statement, values or None).fetchone()
    assert row is not None
    return tuple(row)


def topic(processes: Processes) -> Topic:
    """Return the checks. Their budget of connections is that of these processes."""
    return Topic(CHECKS, partial(_check, processes))
