"""The portal itself: set up by what its pages call, and run as docs/operation.md recommends."""

import base64
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any, Final

from flask import Flask
from flask_migrate import upgrade

from bench.processes import HOST, STARTS_WITHIN, Process, free_port, running
from portal import create_app
from portal.config import ROOT, Settings
from portal.database import enter_scope
from portal.demo.supervisor import WEB, WORKER
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import settings as mail_server_settings
from portal.mail_servers.connection import AuthMode, Encryption
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.tenants import directory

RECIPIENT: Final = "ops@acme.example"
GUNICORN: Final = ("--workers", "2", "--threads", "16", "--log-level", "warning", "--no-control-socket")
PATH: Final = "/api/v1/events"


@dataclass(frozen=True, slots=True)
class Portal:
    """A portal with an empty database: the application in this process, and the environment of its programs."""

    app: Flask
    environment: Mapping[str, str]

    def tenant(self, domain: str, **mail_server: Any) -> str:
        """Add a tenant with one recipient, all events on and a mail server of its own; return a key of its PBX."""
        with self.app.app_context():
            tenant = directory.add(domain, domain, "UTC")
            assert not isinstance(tenant, Refusal), tenant.text
            enter_scope(tenant.id)
            plain = {"provider": "smtp", "host": HOST, "encryption": Encryption.NONE, "auth_mode": AuthMode.NONE}
            sender = {"username": None, "password": None, "sender_email": f"pbx@{domain}"}
            saved = mail_server_settings.save(tenant.id, mail_server_settings.Entered(**plain | sender | mail_server))
            assert not isinstance(saved, Refusal), saved.text
            recipients.replace(tenant, [RECIPIENT])
            switches.turn(tenant, KINDS, on=True)
            return keys.issue(tenant).secret


@dataclass(frozen=True, slots=True)
class Running:
    """A portal that serves: its port, and its programs."""

    port: int
    web: Process
    worker: Process


def gunicorn(application: str, port: int) -> Sequence[str]:
    """Return the command that serves a peer, with as many processes and threads as the portal has."""
    return [sys.executable, "-m", "gunicorn", *GUNICORN, "--chdir", str(ROOT), "--bind", f"{HOST}:{port}", application]


@contextmanager
def prepared(database_url: str, **environment: str) -> Iterator[Portal]:
    """Bring a database's schema up to date, and give the portal on it."""
    given = {
        "PORTAL_ENV": "production",
        "PORTAL_URL": f"http://{HOST}",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEYS": f"1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "DATABASE_URL": database_url,
        "SMTP_ALLOWED_NETWORKS": "127.0.0.0/8,::1",
        "EVENT_RATE_LIMIT": "100000000 per minute",
    } | environment
    app = create_app(Settings.model_validate({name.lower(): value for name, value in given.items()}))
    with app.app_context():
        upgrade(str(ROOT / "migrations"))
    try:
        yield Portal(app, given)
    finally:
        with app.app_context():
            db.engine.dispose()


@contextmanager
def serving(portal: Portal) -> Iterator[Running]:
    """Run the web processes and a worker."""
    port = free_port()
    web_command, worker_command = ([sys.executable, "-m", *command] for command in (WEB, WORKER))
    with (
        running([*web_command, "--host", HOST, "--port", str(port)], portal.environment) as web,
        running(worker_command, portal.environment) as worker,
    ):
        _wait_until_healthy(port, web)
        yield Running(port, web, worker)


def _wait_until_healthy(port: int, web: Process) -> None:
    ends = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < ends and web.poll() is None:
        connection = HTTPConnection(HOST, port, timeout=5)
        with suppress(OSError):
            connection.request("GET", "/healthz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        connection.close()
        time.sleep(0.1)
    raise RuntimeError("the portal did not start")
