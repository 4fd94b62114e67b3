"""Postgres, a mail catcher and the portal, from nothing to a working address, and back."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from types import FrameType
from typing import NoReturn, TypeAlias

from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError

from portal import config, create_app, database
from portal.config import ROOT, Settings
from portal.demo.catcher import catching
from portal.demo.data import Access, Refused, prepare
from portal.demo.mailbox import Mailbox
from portal.demo.screen import screen
from portal.extensions import db

HOST = "127.0.0.1"
STARTS_WITHIN = 60  # seconds
STOPS_WITHIN = 10  # seconds
LOOKS_EVERY = 0.5  # seconds, for a process that ended by itself
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WEB = shlex.split(
    "granian --interface wsgi --workers 2 --blocking-threads 16 --http 1 --no-ws --log-level error wsgi:app"
)
WORKER = shlex.split("flask --app wsgi worker")

Process: TypeAlias = "subprocess.Popen[bytes]"


class CannotRun(Exception):
    """The demo cannot start, or go on. Its text says why, and what to do."""


def main() -> int:
    """Run until somebody stops it, and return the exit status: 1 where something went wrong."""
    for each in STOP_SIGNALS:
        signal.signal(each, _stop)
    try:
        _run()
    except KeyboardInterrupt:
        return 0
    except (CannotRun, Refused) as error:
        print(f"The demo cannot run: {error}", file=sys.stderr)
        return 1


def _run() -> NoReturn:
    port = _number("PORT", 8000)
    _check_free(port)
    os.chdir(ROOT)
    os.environ["PORTAL_ENV"] = "development"
    os.environ.setdefault("PORTAL_URL", f"http://{HOST}:{port}")
    os.environ.setdefault("SMTP_ALLOWED_NETWORKS", "127.0.0.0/8,::1")  # its mail catcher, for tenants to try
    settings = config.load()
    _say("Starting Postgres …")
    os.environ["DATABASE_URL"] = _database_url(settings)
    folder = settings.var_dir / "demo"
    os.environ["DEMO_MAIL_DIR"] = str(folder / "mail")
    with catching(Mailbox(folder / "mail"), _number("DEMO_SMTP_PORT", 2525)) as smtp_port:
        _say("Preparing the database …")
        access = _prepare(smtp_port)
        _say("Starting the portal …")
        with _child(*WEB, "--host", HOST, "--port", str(port)) as portal, _child(*WORKER) as worker:
            _wait_until_it_answers(portal, port)
            _say(screen(f"http://{HOST}:{port}", access))
            while portal.poll() is None and worker.poll() is None and database.embedded_runs(settings):
                time.sleep(LOOKS_EVERY)
    raise CannotRun("one of its processes ended by itself; what it wrote stands above.")


def _database_url(settings: Settings) -> str:
    try:
        return database.url(settings)
    except subprocess.SubprocessError as error:
        log = settings.var_dir / "postgres" / "log"
        raise CannotRun(f"its Postgres did not start; see {log}. DATABASE_URL names another one.") from error


def _prepare(smtp_port: int) -> Access:
    settings = config.load()
    with create_app(settings).app_context():
        try:
            upgrade()
            return prepare(settings.var_dir / "demo" / "access.json", smtp_port)
        except OperationalError as error:
            raise CannotRun(f"Postgres does not answer: {error.orig}") from error
        finally:
            db.engine.dispose()


@contextmanager
def _child(module: str, *arguments: str) -> Iterator[Process]:
    """Run a Python module during the block, out of reach of the terminal's Ctrl-C, so that it ends in its turn."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPS_WITHIN)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of it


def _wait_until_it_answers(portal: Process, port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and portal.poll() is None:
        if _answers(port):
            return
        time.sleep(0.1)
    raise CannotRun("the portal did not start; what it wrote stands above.")


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _number(name: str, default: int) -> int:
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


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # A second Ctrl-C must not break off the clearing up, which ends with Postgres when the interpreter exits.
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
