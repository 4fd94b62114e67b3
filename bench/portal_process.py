"""The portal: set up by the functions that its pages call, and run as docs/operation.md recommends."""

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

from bench.processes import HOST, START_TIMEOUT, Process, free_port, running
from portal import create_app
from portal.config import ROOT, Settings
from portal.database.scope import enter_scope
from portal.demo.supervisor import WEB, WORKER
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service

RECIPIENT: Final = "ops@acme.example"
GUNICORN: Final = ("--workers", "2", "--threads", "16", "--log-level", "warning", "--no-control-socket")
PATH: Final = "/api/v1/events"
WEB_NAME: Final = "all web processes"
WORKER_NAME: Final = "worker"


@dataclass(frozen=True, slots=True)
class Portal:
    """A portal with an empty database: the application in this process, and the environment of its processes."""

    app: Flask
    environment: Mapping[str, str]

    def tenant(self, domain: str, **mail_server: Any) -> str:
        """Add a tenant with one recipient, all events on and a mail server of its own; return a key of its PBX."""
        with self.app.app_context():
            tenant = tenant_service.add(domain, domain, "UTC")
            assert not isinstance(tenant, Refusal), tenant.text
            enter_scope(tenant.id)
            plain = {"provider": "smtp", "host": HOST, "encryption": Encryption.NONE, "auth_mode": AuthMode.NONE}
            sender = {"username": None, "password": None, "sender_email": f"pbx@{domain}"}
            saved = mail_server_settings.save(
                tenant.id, mail_server_settings.EnteredSettings(**plain | sender | mail_server)
            )
            assert not isinstance(saved, Refusal), saved.text
            recipients.replace(tenant, [RECIPIENT])
            settings.set_enabled(tenant, EVENT_TYPES, on=True)
            return api_keys.issue(tenant).secret


@dataclass(frozen=True, slots=True)
class Running:
    """A running portal: its port and its processes."""

    port: int
    web: Process
    worker: Process


def gunicorn(application: str, port: int) -> Sequence[str]:
    """Return the command that serves an alternative, with as many processes and threads as the portal."""
    return [sys.executable, "-m", "gunicorn", *GUNICORN, "--chdir", str(ROOT), "--bind", f"{HOST}:{port}", application]


@contextmanager
def prepared(database_url: str, **environment: str) -> Iterator[Portal]:
    """Upgrade a database's schema and yield the portal on it."""
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


def worker_command() -> Sequence[str]:
    """Return the command that runs a worker."""
    return [sys.executable, "-m", *WORKER]


@contextmanager
def serving(portal: Portal) -> Iterator[Running]:
    """Run the web processes and a worker. Postgres knows their connections by their names."""
    port = free_port()
    web_command = [sys.executable, "-m", *WEB, "--host", HOST, "--port", str(port)]
    with (
        running(web_command, {**portal.environment, "PGAPPNAME": WEB_NAME}) as web,
        running(worker_command(), {**portal.environment, "PGAPPNAME": WORKER_NAME}) as worker,
    ):
        _wait_until_healthy(port, web)
        yield Running(port, web, worker)


def _wait_until_healthy(port: int, web: Process) -> None:
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and web.poll() is None:
        connection = HTTPConnection(HOST, port, timeout=5)
        with suppress(OSError):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        connection.close()
        time.sleep(0.1)
    raise RuntimeError("the portal did not start")
