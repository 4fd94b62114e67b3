"""A production set-up in which nothing is wrong: Postgres with its roles, a proxy with TLS, a mail server, the DNS."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask

from portal import create_app
from portal.database.engine import outage
from portal.database.scope import every_tenant
from portal.doctor import checkup
from portal.doctor.diagnoses import TIME_LIMIT, Diagnosis, State, examine
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp import connect
from portal.tenants import service as tenant_service
from tests.clusters import Cluster, migrate, start_cluster
from tests.conftest import close_connections
from tests.dns_server import DnsServer, dns_server
from tests.reverse_proxy import ReverseProxy, running_proxy, serving
from tests.smtp_peer import SmtpPeer

__all__ = ["dns_server"]

TEMPLATE, DATABASE = "healthy", "portal"
MAIL_USER, MAIL_PASSWORD = "mailer", "Postamt~Geheim+4721"
SENDER_DOMAIN = "voice-pbx.net"


class Portal:
    """The set-up. A test breaks one thing and looks at the diagnoses."""

    def __init__(
        self, cluster: Cluster, proxy: ReverseProxy, peer: SmtpPeer, folder: Path, unchanged: set[str]
    ) -> None:
        self.cluster, self.proxy, self.peer, self._unchanged = cluster, proxy, peer, unchanged
        self.settings = cluster.settings(
            DATABASE,
            portal_url=f"https://localhost:{proxy.server_port}",
            trusted_proxies=1,
            var_dir=folder,
            database_disk=folder,
        )

    def run(self, statement: str) -> None:
        """Run SQL as the superuser. The next test gets a new database."""
        self._unchanged.clear()
        self.cluster.run(statement, DATABASE)

    def app(self, **changes: Any) -> Flask:
        """Return the portal with changed settings. The next test gets a new database."""
        self._unchanged.clear()
        return self._app(**changes)

    def _app(self, **changes: Any) -> Flask:
        return create_app(self.settings.model_copy(update=changes))

    def examine(self, *, seconds: float = TIME_LIMIT, serves: bool = True, **changes: Any) -> Mapping[str, Diagnosis]:
        """Return the diagnoses by check, with changed settings, while the portal is served."""
        app = self._app(**changes)
        with ExitStack() as stack:
            if serves:
                self.proxy.target = stack.enter_context(serving(app))
            found = examine(app, checkup.topics(), seconds)
        close_connections(app)
        outage.end()
        return {diagnosis.name: diagnosis for diagnosis in found}

    def worst(self, **changes: Any) -> Diagnosis:
        """Return the only diagnosis that is not ok, with changed settings."""
        bad = [one for one in self.examine(**changes).values() if one.state in (State.FAILED, State.WARNING)]
        assert len(bad) == 1, checkup.as_text(bad)
        return bad[0]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A server with the template of a database: one tenant, and a shared mail server."""
    started = start_cluster(tmp_path_factory.mktemp("doctor"))
    started.create_database(TEMPLATE)
    migrate(started, TEMPLATE)
    app = create_app(started.settings(TEMPLATE))
    with app.app_context():
        tenant_service.add("Acme", "acme.example", "UTC")
        with every_tenant():
            server = MailServer(
                host=SmtpPeer.host,
                port=25,
                encryption="starttls",
                auth_mode="auto",
                username=MAIL_USER,
                sender_email=f"portal@{SENDER_DOMAIN}",
            )
            server.password = MAIL_PASSWORD
            db.session.add(server)
            db.session.commit()
        assert mail_server_service.get_server(None)
    close_connections(app)
    return started


@pytest.fixture(scope="session")
def unchanged() -> set[str]:
    """The database, unless a test has changed it: a new one takes longer than a test."""
    return set()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The authority that this machine trusts."""
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    """The certificate of the proxy."""
    return authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=60))


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that trusts the authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    connect.tls_context.cache_clear()
    yield
    connect.tls_context.cache_clear()


@pytest.fixture
def portal(
    cluster: Cluster,
    authority: trustme.CA,
    certificate: trustme.LeafCert,
    trusting: None,
    dns_server: DnsServer,
    tmp_path: Path,
    unchanged: set[str],
) -> Iterator[Portal]:
    """The set-up, in a database that no test has changed."""
    if not unchanged:
        cluster.create_database(DATABASE, TEMPLATE)
    dns_server.add(SENDER_DOMAIN, "MX", f"10 mx.{SENDER_DOMAIN}.")
    dns_server.add_text(SENDER_DOMAIN, "v=spf1 ip4:127.0.0.1 -all")
    dns_server.add_text(f"_dmarc.{SENDER_DOMAIN}", "v=DMARC1; p=reject")
    server_certificate = authority.issue_cert("127.0.0.1")
    accounts = {MAIL_USER: MAIL_PASSWORD}
    with SmtpPeer(certificate=server_certificate, accounts=accounts) as peer, running_proxy(certificate) as proxy:
        set_up = Portal(cluster, proxy, peer, tmp_path, unchanged)
        set_up.run(f"UPDATE mail_servers SET port = {peer.port}; DELETE FROM procrastinate_workers")
        set_up.run("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now())")
        unchanged.add(DATABASE)
        yield set_up
