"""Fixtures: a tenant that is set up, and the system's mail server, which emails administrators."""

from collections.abc import Iterator

import pytest
from flask import Flask

from portal.mail_servers import service as mail_server_service
from tests.conftest import make_account
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import entered, key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "system_key", "working_tenant"]

ADMIN, ROOT = "admin@acme.example", "root@pbx.example"


@pytest.fixture
def system_peer(app: Flask) -> Iterator[SmtpPeer]:
    """The system's mail server."""
    with SmtpPeer() as peer:
        with app.app_context():
            mail_server_service.save(None, entered(peer.port, sender_email="portal@pbx.example"))
        yield peer


@pytest.fixture
def people(app: Flask, working_tenant: str) -> None:
    """An administrator of Acme, and one of the system."""
    make_account(app, ADMIN, administers=working_tenant)
    make_account(app, ROOT, system=True)
