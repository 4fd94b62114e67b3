"""Starts and stops Postgres, the mail catcher, the portal and a worker."""

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError

from portal import config, create_app
from portal.config import ROOT, Settings
from portal.database import embedded
from portal.demo.data import SYSTEM_ADMINISTRATOR, TENANT_ADMINISTRATOR, Access, DemoDataRejected, prepare
from portal.demo.mail_catcher import run_catcher
from portal.demo.mailbox import Mailbox
from portal.extensions import db

HOST = "127.0.0.1"
START_TIMEOUT = 60  # seconds
STOP_TIMEOUT = 10  # seconds
CHECK_INTERVAL = 0.5  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MIN_LIFETIME = 10  # seconds: a process that ends sooner is not started again
WEB = ("portal", "run")
WORKER = ("portal", "worker")

EVENT = {
    "type": "queue.call_lost",
    "data": {"queue_number": "8000", "queue_name": "Support", "caller_number": "+442079460123", "waited_seconds": 90},
}
ROLES = {SYSTEM_ADMINISTRATOR: "System administrator", TENANT_ADMINISTRATOR: "Administrator of Acme"}
CHANGED = "(password was changed)"

say = partial(print, flush=True)


class CannotRun(Exception):
    """The demo cannot start or continue. The text says why, and what to do."""


def main() -> int:
    """Run until stopped and return the exit status: 1 after an error."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, _stop)
    try:
        _run()
    except KeyboardInterrupt:
        return 0
    except (CannotRun, DemoDataRejected) as error:
        print(f"The demo cannot run: {error}", file=sys.stderr)
        return 1


def _run() -> NoReturn:
    port = _port_setting("PORT", 8000)
    os.chdir(ROOT)
    os.environ |= {"PORTAL_ENV": "development", "PORTAL_ENV_FILE": ""}
    os.environ.setdefault("PORTAL_URL", f"http://{HOST}:{port}")
    os.environ.setdefault("SMTP_ALLOWED_NETWORKS", "127.0.0.0/8,::1")  # so that tenants can use the mail catcher
    settings = config.load()
    folder = settings.var_dir / "demo"
    with _only_one(folder, f"http://{HOST}:{port}"):
        _check_free(port)
        _run_processes(settings, folder, port)


def _run_processes(settings: Settings, folder: Path, port: int) -> NoReturn:
    say("Starting Postgres …")
    os.environ["DATABASE_URL"] = _database_url(settings)
    os.environ["DEMO_MAIL_DIR"] = str(folder / "mail")
    # The web processes load their code while the database is prepared. Until then /readyz answers 503.
    with (
        run_catcher(Mailbox(folder / "mail"), _port_setting("DEMO_SMTP_PORT", 2525)) as smtp_port,
        Child("web server", *WEB, "--host", HOST, "--port", str(port)) as portal,
    ):
        say("Preparing the database …")
        access = _prepare(smtp_port)
        say("Starting the portal …")
        with Child("worker", *WORKER) as worker:
            _wait_until_ready(portal, port)
            say(banner(f"http://{HOST}:{port}", access))
            while True:
                time.sleep(CHECK_INTERVAL)
                if not embedded.is_embedded_running(settings):
                    say("Postgres ended and is started again.")
                    _database_url(settings)
                portal.keep_running()
                worker.keep_running()


@contextmanager
def _only_one(folder: Path, url: str) -> Iterator[None]:
    """Hold the folder's lock during the block. The processes that are started do not inherit it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotRun(f"it is already running in this folder, at {file.read()}") from None
        file.truncate(0)
        file.write(url)
        file.flush()
        yield


def _database_url(settings: Settings) -> str:
    try:
        return embedded.database_url(settings)
    except subprocess.SubprocessError as error:
        log = settings.var_dir / "postgres" / "log"
        raise CannotRun(f"Postgres did not start; see {log}. Set DATABASE_URL to use another one.") from error


def _prepare(smtp_port: int) -> Access:
    settings = config.load()
    with create_app(settings).app_context():
        try:
            upgrade()
            return prepare(settings.var_dir / "demo" / "access.json", smtp_port)
        except OperationalError as error:
            raise CannotRun(f"Postgres is not responding: {error.orig}") from error
        finally:
            db.engine.dispose()


class Child:
    """A Python module that runs during a block, in a session of its own so that Ctrl-C reaches only the supervisor."""

    def __init__(self, title: str, *command: str) -> None:
        self.title, self._command = title, [sys.executable, "-m", "portal.demo.child", *command]
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        self._end_session()

    def keep_running(self) -> None:
        """Start it again if it has ended. Raise CannotRun if that was soon after its start."""
        if self.process.poll() is None:
            return
        if time.monotonic() - self._started_at < MIN_LIFETIME:
            raise CannotRun(f"the {self.title} ended soon after its start; see its output above.")
        self._end_session()
        say(f"The {self.title} ended and is started again.")
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(self._command, start_new_session=True, stdin=subprocess.PIPE)  # noqa: S603
        self._started_at = time.monotonic()

    def _end_session(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # any remaining processes


def _wait_until_ready(portal: Child, port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and portal.process.poll() is None:
        if _is_ready(port):
            return
        time.sleep(0.1)
    raise CannotRun("the portal did not start; see its output above.")


def _is_ready(port: int) -> bool:
    with closing(HTTPConnection(HOST, port, timeout=5)) as connection, suppress(OSError):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    return False


def _port_setting(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise CannotRun(f"{name} must be a port number between 1 and 65535, not {text!r}.")
    return int(text)


def _check_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CannotRun(f"port {port}: {reason}. Choose another one: PORT={port + 1} make run") from None


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # A second Ctrl-C must not interrupt the shutdown, which ends with Postgres when the interpreter exits.
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    raise KeyboardInterrupt


def banner(url: str, access: Access) -> str:
    """Return the addresses, the accounts, and a command that reports an event."""
    rows = [("Portal", url)]
    rows += [(ROLES[email], f"{email}  {password or CHANGED}") for email, password in access.passwords.items()]
    rows += [("Captured email", f"{url}/demo/mail")]
    lines = [f"  {name:<23}{value}" for name, value in rows]
    if access.key:
        headers = ("Content-Type: application/json", f"Authorization: Bearer {access.key}")
        options = [part for header in headers for part in ("-H", header)]
        command = shlex.join(["curl", f"{url}/api/v1/events", *options, "-d", json.dumps(EVENT)])
        lines += ["", "  Report a lost call as a PBX does:", "", f"  {command}"]
    return "\n".join(["", *lines, "", "  Ctrl-C stops the demo. Its data is kept.", ""])
