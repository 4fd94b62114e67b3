"""A real PgBouncer on loopback in front of a database."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.ports import free_port

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
CONFIGURATION = """\
[databases]
{database} = host={host} port={postgres_port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{options}
"""


def is_installed() -> bool:
    """Return whether this machine has it."""
    return Path(PROGRAM).exists()


@contextmanager
def running(database_url: str, folder: Path, options: str = "", mode: str = "transaction") -> Iterator[str]:
    """Run it, and yield the URL at which the database, whose own URL has a socket, is reached through it."""
    direct = make_url(database_url)
    port = free_port()
    file = folder / "pgbouncer.ini"
    values = {"database": direct.database, "host": direct.query["host"], "postgres_port": direct.port or 5432}
    password = f" password={direct.password}" if direct.password else ""
    login = {"user": direct.username, "password": password}
    file.write_text(CONFIGURATION.format(**values, **login, port=port, options=options, mode=mode))
    owner = Path(str(direct.query["host"])).owner()  # who may open the socket; root may not run it
    command = [PROGRAM, "--quiet", "--user", owner, str(file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield direct.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    ends = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < ends, "PgBouncer did not start"
            time.sleep(0.05)
        else:
            return
