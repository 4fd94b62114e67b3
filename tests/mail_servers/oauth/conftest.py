"""Fixtures: a token server that the operator's settings name, and Acme's mail server that takes its tokens."""

from collections.abc import Iterator

import pytest
from flask import Flask

from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp.client import AuthMode
from portal.tenants import service as tenant_service
from tests.tenant_fixtures import entered
from tests.token_server import TokenServer, running


@pytest.fixture
def token_server(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """A token server; mail servers on this machine take Microsoft's tokens."""
    with running() as server:
        settings = app.extensions["settings"].model_copy(
            update={**server.settings, "microsoft_smtp_hosts": ("127.0.0.1",), "google_smtp_hosts": ("localhost",)}
        )
        monkeypatch.setitem(app.extensions, "settings", settings)
        yield server


@pytest.fixture
def oauth_tenant(app: Flask, acme: str, token_server: TokenServer) -> int:
    """The id of Acme, whose mail server is to be signed in to with OAuth 2.0, and is not connected yet."""
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        saved = mail_server_service.save(tenant.id, entered(2525, auth_mode=AuthMode.OAUTH))
        assert isinstance(saved, MailServer)
        return tenant.id
