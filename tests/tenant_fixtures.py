"""Fixtures: a PBX with its keys, and a tenant that is set up to receive email."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.service import EnteredSettings
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.beginnings import begin_with
from tests.smtp_peer import SmtpPeer

CALL_LOST = {"queue_number": "8000", "caller_number": "+442079460123", "waited_seconds": 90}
PEOPLE = ["ops@acme.example", "night@acme.example"]


@dataclass(frozen=True)
class Answer:
    """The response to a PBX."""

    status_code: int
    content_type: str
    headers: Headers
    json: Any


def read(answer: TestResponse) -> Answer:
    """Return the response with its JSON."""
    return Answer(answer.status_code, answer.content_type or "", answer.headers, answer.get_json())


Post = Callable[..., Answer]


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    """A scripted mail server."""
    with SmtpPeer() as peer:
        yield peer


@pytest.fixture
def key(app: Flask, acme: str) -> str:
    """A key of Acme."""
    with app.app_context():
        return api_keys.issue(tenant_service.find(acme)).secret


@pytest.fixture
def system_key(app: Flask) -> str:
    """A key that reports the events of all tenants."""
    with app.app_context():
        return api_keys.issue(None).secret


def entered(port: int, **changes: Any) -> EnteredSettings:
    """Return the settings of a mail server on this machine."""
    values: dict[str, Any] = {
        "provider": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "encryption": Encryption.NONE,
        "auth_mode": AuthMode.NONE,
        "username": None,
        "password": None,
        "sender_email": "pbx@acme.example",
    }
    return EnteredSettings(**values | changes)


@pytest.fixture
def working_tenant(app: Flask, acme: str, peer: SmtpPeer) -> str:
    """Acme, with its own mail server, two recipients and all events on."""

    def write() -> None:
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        mail_server_settings.save(tenant.id, entered(peer.port))
        recipients.replace(tenant, PEOPLE)
        settings.set_enabled(tenant, EVENT_TYPES, on=True)

    begin_with(app, "working tenant", write, port=peer.port)
    return acme


@pytest.fixture
def post(client: FlaskClient, key: str) -> Post:
    """A function that posts an event of Acme as its PBX does and returns the response."""

    def post(kind: str = "queue.call_lost", data: dict[str, Any] | None = None, **attributes: Any) -> Answer:
        body = {"type": kind, "data": CALL_LOST if data is None else data, **attributes}
        return read(client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"}))

    return post
