"""Two machines: one whose portal has worked for a while, and one with an empty database."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask

from portal.accounts import service as account_service
from portal.config import Settings
from portal.database.scope import enter_scope
from portal.deliveries.models import Delivery
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode
from portal.notifications import recipients
from portal.notifications import settings as notification_settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.clusters import Cluster, migrate, start_cluster
from tests.operator import opened
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import CALL_LOST, entered

TEMPLATE, DATABASE = "used", "portal"
ADMIN, MAIL_PASSWORD, PASSPHRASE = "admin@acme.example", "Postamt~Geheim+4740", "correct horse battery staple"
ACME, GLOBEX = "acme.example", "globex.example"


@dataclass(frozen=True)
class Machine:
    """A machine with a Postgres and the settings of a portal on it."""

    cluster: Cluster
    settings: Settings

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run SQL as the superuser."""
        return self.cluster.run(statement, DATABASE)


@dataclass
class Used:
    """What was created on the first machine: API keys by domain, and its mail server."""

    keys: dict[str, str]
    peer: SmtpPeer


@pytest.fixture(scope="session")
def used(old_cluster: Cluster) -> Iterator[Used]:
    """A portal with two tenants, which have sent an email each."""
    old_cluster.create_database(TEMPLATE)
    migrate(old_cluster, TEMPLATE)
    keys: dict[str, str] = {}
    with SmtpPeer(accounts={"mailer": MAIL_PASSWORD}) as peer:
        with opened(_settings(old_cluster, TEMPLATE)) as app:
            for domain in (ACME, GLOBEX):
                with app.app_context():
                    keys[domain] = _add_tenant(domain, peer.port)
                assert post_event(app, keys[domain], "first") == "sent"
            with app.app_context():
                tenant = tenant_service.find(ACME)
                assert tenant
                account_service.add(ADMIN, PASSWORD, tenant_id=tenant.id)
        yield Used(keys, peer)


def _add_tenant(domain: str, port: int) -> str:
    tenant = tenant_service.add(domain, domain, "UTC")
    assert not hasattr(tenant, "text"), tenant
    enter_scope(tenant.id)
    values = {"auth_mode": AuthMode.AUTO, "username": "mailer", "password": MAIL_PASSWORD}
    mail_server_service.save(tenant.id, entered(port, **values))
    recipients.replace(tenant, [f"ops@{domain}"])
    notification_settings.set_enabled(tenant, EVENT_TYPES, on=True)
    return api_keys.issue(tenant).secret


def post_event(app: Flask, key: str, external_id: str) -> str:
    """Report an event and return the status of its email."""
    body = {"id": external_id, "type": "queue.call_lost", "data": CALL_LOST}
    answer = app.test_client().post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code in {200, 202}, answer.text
    status: str = answer.get_json()["deliveries"][0]["status"]
    return status


def statuses(app: Flask, domain: str) -> dict[str, tuple[str, str | None]]:
    """Return status and reason of a tenant's emails, by the ID of their event."""
    with app.app_context():
        tenant = tenant_service.find(domain)
        assert tenant
        enter_scope(tenant.id)
        return {row.event.external_id: (row.status, row.reason) for row in db.session.query(Delivery)}


def _settings(cluster: Cluster, database: str) -> Settings:
    return cluster.settings(database, smtp_allowed_networks="127.0.0.0/8")


@pytest.fixture(scope="session")
def old_cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The Postgres of the first machine."""
    return start_cluster(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="session")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The Postgres of the second machine: only the logins are there."""
    cluster = start_cluster(tmp_path_factory.mktemp("new"))
    cluster.run("REVOKE pbx_portal FROM portal; DROP ROLE pbx_portal; ALTER ROLE portal_owner CREATEROLE")
    return cluster


@pytest.fixture
def old(old_cluster: Cluster, used: Used) -> Machine:
    """The first machine."""
    old_cluster.create_database(DATABASE, TEMPLATE)
    return Machine(old_cluster, _settings(old_cluster, DATABASE))


@pytest.fixture
def new(new_cluster: Cluster) -> Machine:
    """The second machine, with an empty database."""
    new_cluster.create_database(DATABASE)
    new_cluster.run("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pbx_portal') THEN
                CREATE ROLE pbx_portal NOLOGIN;
            END IF;
        END $$;
        GRANT pbx_portal TO portal
    """)
    return Machine(new_cluster, _settings(new_cluster, DATABASE))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the backup is written."""
    return tmp_path / "portal.backup"
