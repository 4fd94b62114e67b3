"""Two web hosts and two workers on one Postgres: one of each is lost under load, and nothing that was acknowledged."""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import make_url

from portal.config import Settings
from portal.pbx.api_keys import IssuedKey
from tests import machines, web_server
from tests.processes import wait_for
from tests.signing import signed_key
from tests.smtp_peer import SlowReply, SmtpPeer
from tests.sql import sql
from tests.steady_load import MAKE_DUE, SteadyLoad
from tests.tenant_fixtures import peer, working_tenant

__all__ = ["peer", "signed_key", "working_tenant"]

pytestmark = pytest.mark.operation

PORT = 8000
SLOWLY = SlowReply("250 2.0.0 queued", 0.02)  # so that emails are being sent when a machine is lost
TO_END = 3.0  # seconds for what the other machines are sending
END_LEASES = "UPDATE deliveries SET lease_until = now() WHERE status = 'pending'"  # 3 minutes earlier
PENDING = "SELECT message_id FROM deliveries WHERE status = 'pending'"
UNSENT = "SELECT message_id FROM deliveries WHERE status <> 'sent'"
EVENTS = "SELECT external_id FROM events"
USE_MAIL_SERVER = "UPDATE mail_servers SET host = :host, port = :port"
ATTEMPTED_TWICE = "SELECT count(*) FROM deliveries WHERE attempts > 1"


class NetworkPeer(SmtpPeer):
    """A mail server that all machines reach."""

    host = f"{machines.NETWORK}.1"


def test_a_lost_web_host_and_a_lost_worker(
    app: Flask, settings: Settings, working_tenant: str, signed_key: IssuedKey, tmp_path: Path
) -> None:
    url = make_url(settings.database_url or "")
    socket_file = Path(str(url.query["host"]), f".s.PGSQL.{url.port or 5432}")
    with ExitStack() as stack:
        hosts = stack.enter_context(machines.running(4))
        database_port = stack.enter_context(machines.forwarded(str(socket_file)))
        mail_server = stack.enter_context(NetworkPeer({"rcpt": "450 4.2.0 later"}))
        through = url.set(drivername="postgresql", host=NetworkPeer.host, port=database_port, query={})
        environment = {
            **web_server.variables(settings, PORT),
            "DATABASE_URL": through.render_as_string(hide_password=False),
            "SMTP_ALLOWED_NETWORKS": f"{machines.NETWORK}.0/24",
        }
        with app.app_context():
            sql(USE_MAIL_SERVER, host=mail_server.host, port=mail_server.port)
        for host in hosts[:2]:
            output = tmp_path / host.name
            host.run(
                "portal", "run", "--host", host.ip_address, "--processes", "1", environment=environment, output=output
            )
        for host in hosts[2:]:
            host.run("portal", "worker", environment=environment, output=tmp_path / host.name)
        addresses = [host.ip_address for host in hosts[:2]]
        wait_for(lambda: all(web_server.is_open(PORT, address) for address in addresses))
        with app.app_context(), SteadyLoad([PORT], signed_key, hosts=addresses, timeout=10) as load:
            load.wait_for(100)  # deferred
            mail_server.script = {"dot": SLOWLY}
            sql(MAKE_DUE)
            wait_for(lambda: bool(sql(ATTEMPTED_TWICE)[0][0]))
            load.wait_for(40)
            for lost in (hosts[0], hosts[2]):
                lost.lose()
            in_progress = message_ids(PENDING)
            load.hosts = addresses[1:]  # as a load balancer notices
            load.wait_for(100)
        mail_server.script = {}
        with app.app_context():
            wait_for(lambda: bool(sql(MAKE_DUE)) or message_ids(UNSENT) <= in_progress)
            time.sleep(TO_END)
            sql(END_LEASES)
            wait_for(lambda: bool(sql(MAKE_DUE)) or not message_ids(UNSENT))
            assert load.acknowledged <= {row.external_id for row in sql(EVENTS)}
        assert in_progress
        accepted = Counter(message.content.split(b"Message-ID: ")[1].split()[0] for message in mail_server.messages)
        twice = {message_id.decode() for message_id, number in accepted.items() if number > 1}
        assert twice <= in_progress
        assert max(accepted.values()) <= 2
        assert all(process.poll() is None for host in (hosts[1], hosts[3]) for process in host.programs)
        assert load.results.keys() <= {200, "broken"}  # those of the lost host


def message_ids(statement: str) -> set[str]:
    """Return the Message-IDs that the statement finds."""
    return {row.message_id for row in sql(statement)}
