"""What `pbx-portal init` creates: the settings files, and the roles and the database on a Postgres server.

Each step finds out what exists already and creates the rest, so that all of them can be repeated at any time.
"""

import os
import pwd
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from portal import settings_file
from portal.database.engine import ROLE
from portal.generated_secrets import generate, write_private

OWNER_VARIABLE: Final = "MIGRATION_DATABASE_URL"
LOCAL_SUPERUSER: Final = "postgres"  # Debian's, of Postgres and of the machine
CONNECT_TIMEOUT: Final = 10  # seconds
_INCOMPLETE: Final = (
    f"In the settings files, DATABASE_URL and {OWNER_VARIABLE} must be like postgresql://user:password@host/database."
)
_ROLES: Final = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
_DATABASES: Final = "SELECT datname FROM pg_database WHERE datname = %s"


class CannotInstall(Exception):
    """A step cannot be taken. The text says why, and what to do."""


def create_settings(file: Path, values: Mapping[str, str], urls: Mapping[str, str]) -> None:
    """Create the settings files, with new secrets. They are the last thing to be lost: nothing overwrites them."""
    owner = {name: url for name, url in urls.items() if name == OWNER_VARIABLE}
    new = {name.upper(): value for name, value in generate().items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if owner:
            write_private(settings_file.owner_file(file), _lines(owner))
        write_private(file, _lines({**values, **urls, **new}, without=OWNER_VARIABLE), keep_existing=True)
    except OSError as error:
        hint = " Run the command as root." if isinstance(error, PermissionError) else ""
        raise CannotInstall(f"{file.parent} cannot be written: {error.strerror}.{hint}") from None


def new_urls(server_url: str, database: str, file: Path) -> Mapping[str, str]:
    """Return the settings for a new database on a server: the URLs of two roles, with new passwords.

    Raise CannotInstall if they exist: they are of a portal whose settings file is missing, and so are its secrets.
    """
    login, owner = database, f"{database}_owner"
    with _connected(server_url) as server:
        roles = server.execute(_ROLES, [[login, owner]]).fetchall()
        databases = server.execute(_DATABASES, [database]).fetchall()
        port = server.info.port
    found = [*(f"the role {name}" for (name,) in roles), *(f"the database {name}" for (name,) in databases)]
    if found:
        raise CannotInstall(
            f"Postgres already has {' and '.join(found)}, but there is no {file}. If a portal uses them, restore its "
            "settings files, which have its secrets. Otherwise choose another name: --database NAME"
        )
    # Over its socket, Debian's Postgres accepts only roles that are named as the user of the machine.
    server_of = make_url(server_url or f"postgresql://127.0.0.1:{port}")
    return {
        name: server_of.set(
            drivername="postgresql", username=role, password=secrets.token_urlsafe(24), database=database
        ).render_as_string(hide_password=False)
        for name, role in (("DATABASE_URL", login), (OWNER_VARIABLE, owner))
    }


def create_database(server_url: str, login_url: str, owner_url: str) -> None:
    """Create the roles and the database of these URLs that do not exist yet, as the superuser of `server_url`."""
    login, owner = map(_complete, (login_url, owner_url))
    try:
        with _connected(server_url) as server:
            with server.transaction():
                _create_role(server, ROLE, None)
                _create_role(server, str(owner["user"]), str(owner["password"]))
                if _create_role(server, str(login["user"]), str(login["password"])):
                    _execute(server, "GRANT {} TO {}", ROLE, str(login["user"]))
            if not server.execute(_DATABASES, [login["dbname"]]).fetchone():
                statement = "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'"
                _execute(server, statement, str(login["dbname"]), str(owner["user"]))
    except psycopg.errors.InsufficientPrivilege as error:
        raise CannotInstall(f"Postgres refuses: {_first_line(error)}. Name a superuser: --superuser-url URL") from None


def login_problem(url: str) -> str | None:
    """Return why nobody can connect with this URL of a settings file, or None."""
    try:
        psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT).close()
    except psycopg.OperationalError as error:
        return (
            f"The role {_complete(url)['user']} cannot connect to Postgres: {_first_line(error)}. "
            "Compare its password in the settings file, and pg_hba.conf of Postgres."
        )
    return None


def _complete(url: str) -> Mapping[str, Any]:
    """Return the parts of a URL of a settings file. Raise CannotInstall if one that is needed is missing."""
    parts = conninfo_to_dict(url)
    if not parts.keys() >= {"user", "password", "dbname"}:
        raise CannotInstall(_INCOMPLETE)
    return parts


@contextmanager
def _connected(server_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as a superuser. An empty URL: over the socket of this machine's Postgres, as its own superuser."""
    try:
        with _as_local_superuser(is_local=not server_url):
            target = server_url or f"dbname=postgres user={LOCAL_SUPERUSER}"
            connection = psycopg.connect(target, autocommit=True, connect_timeout=CONNECT_TIMEOUT)
    except psycopg.OperationalError as error:
        hint = "" if server_url else " Run the command as root, or name a superuser: --superuser-url URL"
        raise CannotInstall(f"Postgres cannot be reached: {_first_line(error)}.{hint}") from None
    with connection:
        yield connection


@contextmanager
def _as_local_superuser(*, is_local: bool) -> Iterator[None]:
    """Let root be the superuser's user of this machine during the block, whom Postgres knows by its socket (peer)."""
    if not is_local or os.geteuid() != 0:
        yield
        return
    try:
        user = pwd.getpwnam(LOCAL_SUPERUSER).pw_uid
    except KeyError:
        raise CannotInstall(
            "This machine has no Postgres. Install one (apt-get install postgresql), name the superuser of another one "
            "(--superuser-url URL), or choose the embedded one (--embedded)."
        ) from None
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def _create_role(server: psycopg.Connection[Any], name: str, password: str | None) -> bool:
    """Create a role unless it exists, and return whether it did not. The server and its log get no password."""
    if server.execute(_ROLES, [[name]]).fetchone():
        return False
    if password is None:
        _execute(server, "CREATE ROLE {} NOLOGIN", name)
    else:
        verifier = server.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(verifier)))
    return True


def _execute(server: psycopg.Connection[Any], statement: str, *names: str) -> None:
    server.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _lines(values: Mapping[str, str], without: str = "") -> str:
    return "".join(f"{name}='{value}'\n" for name, value in values.items() if name != without)


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
