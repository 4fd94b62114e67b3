"""Attacks that a deployment invites: other host names, proxies, two lengths, and secrets in the environment."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal import config, create_app
from portal.accounts import rate_limits
from portal.accounts.request_guards import SIGN_IN
from portal.config import SECRET_VARIABLES, Settings, UnsafeSettings
from portal.web.deployment import REPORTED, without_port
from tests.conftest import TEST_KEY, TEST_SECRET, close_connections, make_passwords_cheap
from tests.pages import csrf_token
from tests.processes import start, wait
from tests.tenant_fixtures import CALL_LOST, key, peer, working_tenant

__all__ = ["key", "peer", "working_tenant"]

PRODUCTION = {
    "PORTAL_ENV": "production",
    "PORTAL_URL": "https://portal.test",
    "SECRET_KEY": TEST_SECRET,
    "ENCRYPTION_KEYS": TEST_KEY,
    "DATABASE_URL": "postgresql://portal:secret@127.0.0.1:9/portal",
    "MIGRATION_DATABASE_URL": "postgresql://owner:secret@127.0.0.1:9/portal",
}


class Portals:
    """Portals on the test database that are reached in different ways, one for each way."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.apps = settings, dict[str, Flask]()

    def __call__(self, **changes: Any) -> FlaskClient:
        """Return a browser that reaches the portal in this way. The portal has reported no problem yet."""
        way = repr(changes)
        if way not in self.apps:
            self.apps[way] = create_app(self.settings.model_copy(update={"trusted_hosts": (), **changes}))
            make_passwords_cheap(self.apps[way])
        self.apps[way].extensions[REPORTED].clear()
        return self.apps[way].test_client()


Reached = Callable[..., FlaskClient]


@pytest.fixture(scope="module")
def portals(built_app: Flask, settings: Settings) -> Iterator[Portals]:
    portals = Portals(settings)
    yield portals
    for other in portals.apps.values():
        close_connections(other)


@pytest.fixture
def reached(app: Flask, portals: Portals) -> Reached:
    return portals


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "portal.test.evil.example", "evil.example:80", "xportal.test", "localhost", "127.0.0.1"),
        *("portal.test@evil.example", "portal.test,evil.example", "[::1]", "192.0.2.1", ".portal.test", "", " "),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/forgotten-password", "/", "/static/app.css", "/nothing"])
def test_pages_answer_only_to_the_portals_host_name(portals: Portals, host: str, path: str) -> None:
    answer = portals().get(path, headers={"Host": host})
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert "http://portal.test" in answer.text
    assert "evil.example" not in answer.text


@pytest.mark.parametrize("host", ["portal.test", "PORTAL.test", "portal.test:80", "portal.test:8443"])
def test_the_portals_own_host_name_is_accepted_with_any_port(reached: Reached, host: str) -> None:
    assert reached().get("/sign-in", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_on_one_machine_every_name_of_it_is_accepted_and_no_other(reached: Reached, url: str) -> None:
    browser = reached(portal_url=url)
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000", "portal.localhost", "127.1.2.3"):
        assert browser.get("/sign-in", headers={"Host": host}).status_code == 200, host
    for host in ("rebound.evil.example:8000", "127.0.0.1.evil.example", "192.0.2.1"):
        assert browser.get("/sign-in", headers={"Host": host}).status_code == 400, host


def test_a_rebound_name_does_not_reach_captured_email(reached: Reached, tmp_path: Any) -> None:
    browser = reached(portal_url="http://127.0.0.1:8000", demo_mail_dir=tmp_path)
    assert browser.get("/demo/mail", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert browser.get("/demo/mail", headers={"Host": "evil.example:8000"}).status_code == 400


def test_other_names_can_be_allowed(reached: Reached) -> None:
    browser = reached(trusted_hosts=("portal.internal",))
    assert browser.get("/sign-in", headers={"Host": "portal.internal:8080"}).status_code == 200
    assert browser.get("/sign-in", headers={"Host": "other.internal"}).status_code == 400


def test_health_checks_and_pbxs_may_use_an_ip_address(reached: Reached, key: str) -> None:
    client = reached()
    assert client.get("/healthz", headers={"Host": "192.0.2.1:8000"}).status_code == 200
    headers = {"Host": "192.0.2.1:8000", "Authorization": f"Bearer {key}"}
    event = {"type": "queue.call_lost", "data": CALL_LOST}
    assert client.post("/api/v1/events", json=event, headers=headers).status_code == 200


def submit_sign_in(browser: FlaskClient, host: str, referrer: str) -> TestResponse:
    """Submit the sign-in page through a proxy that ends TLS and passes this host."""
    headers = {"Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.1"}
    base_url = "https://portal.test"
    page = browser.get("/sign-in", headers=headers, base_url=base_url).text
    data = {"csrf_token": csrf_token(page), "email": "nobody@acme.example", "password": "wrong wrong wrong"}
    if referrer:
        headers["Referer"] = referrer
    return browser.post("/sign-in", data=data, headers=headers, base_url=base_url)


@pytest.mark.parametrize("host", ["portal.test", "portal.test:80", "portal.test:8443", "PORTAL.test:443"])
def test_a_proxy_that_drops_or_changes_the_port_does_not_reject_forms(reached: Reached, host: str) -> None:
    browser = reached(portal_url="https://portal.test:8443", trusted_proxies=1)
    answer = submit_sign_in(browser, host, "https://portal.test:8443/sign-in")
    assert answer.status_code == 200
    assert "is incorrect" in answer.text


@pytest.mark.parametrize("referrer", ["", "https://evil.example/", "https://portal.test:9999/sign-in"])
def test_a_form_that_is_rejected_for_its_referrer_names_the_cause(
    reached: Reached, caplog: pytest.LogCaptureFixture, referrer: str
) -> None:
    browser = reached(portal_url="https://portal.test:8443", trusted_proxies=1)
    for _ in range(2):
        answer = submit_sign_in(browser, "portal.test", referrer)
        assert answer.status_code == 400
        assert "Allow the Referer header for this site in your browser." in answer.text
    assert caplog.text.count("its Referer header is missing or names another host than the request") == 1


def test_a_proxy_that_hides_the_host_is_reported_once(reached: Reached, caplog: pytest.LogCaptureFixture) -> None:
    browser = reached(portal_url="https://portal.test")
    for _ in range(3):
        browser.get("/sign-in", headers={"Host": "127.0.0.1:8000"})
    (line,) = (record.message for record in caplog.records if record.name.startswith("portal"))
    assert "pass on the Host header" in line


def test_a_proxy_that_is_not_configured_is_reported_once(reached: Reached, caplog: pytest.LogCaptureFixture) -> None:
    browser = reached(portal_url="https://portal.test")
    for path in ("/sign-in", "/healthz", "/sign-in"):
        browser.get(path, headers={"Host": "portal.test", "X-Forwarded-For": "192.0.2.1"})
    (line,) = (record.message for record in caplog.records if record.name.startswith("portal"))
    assert "TRUSTED_PROXIES" in line
    configured = reached(portal_url="https://portal.test", trusted_proxies=1)
    caplog.clear()
    configured.get("/sign-in", headers={"Host": "portal.test", "X-Forwarded-For": "192.0.2.1"})
    assert not caplog.records


@pytest.mark.parametrize(
    ("url", "reports"),
    [("http://portal.test", 1), ("https://portal.test", 0), ("http://127.0.0.1:8000", 0), ("http://[::1]", 0)],
)
def test_a_portal_without_tls_is_reported_once(
    reached: Reached, caplog: pytest.LogCaptureFixture, url: str, reports: int
) -> None:
    browser = reached(portal_url=url)
    for _ in range(2):
        browser.get("/healthz")
    assert sum("without encryption" in record.message for record in caplog.records) == reports


def test_captured_email_is_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    config.load()
    monkeypatch.setenv("DEMO_MAIL_DIR", "/tmp/mail")
    with pytest.raises(UnsafeSettings, match="DEMO_MAIL_DIR"):
        config.load()


def test_hosts_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRUSTED_HOSTS", " Portal.Internal, 10.0.0.5 ,")
    assert config.load().trusted_hosts == ("portal.internal", "10.0.0.5")
    for wrong in ("https://portal.internal", "portal.internal:8000"):
        monkeypatch.setenv("TRUSTED_HOSTS", wrong)
        with pytest.raises(UnsafeSettings, match="TRUSTED_HOSTS"):
            config.load()


@pytest.mark.parametrize(
    ("forwarded", "ip_address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:50123", "203.0.113.9"),
        ("[2001:db8::9]:50123", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_a_port_is_not_part_of_an_ip_address(forwarded: str, ip_address: str) -> None:
    assert without_port(forwarded) == ip_address


@pytest.mark.parametrize("form", ["203.0.113.9:{}", "[2001:db8::9]:{}", "::ffff:203.0.113.9", "not an address {}"])
def test_another_port_does_not_start_the_count_again(reached: Reached, form: str) -> None:
    browser = reached(trusted_proxies=1, portal_url="http://portal.test")
    headers = {"X-Forwarded-Host": "portal.test"}
    token = csrf_token(browser.get("/sign-in", headers=headers).text)
    data = {"csrf_token": token, "email": "admin@acme.example", "password": "wrong wrong"}
    answers = [
        browser.post("/sign-in", data=data, headers=headers | {"X-Forwarded-For": form.format(number)}).status_code
        for number in range(50_000, 50_012)
    ]
    assert answers == [200] * 10 + [429] * 2


def test_clients_of_an_ipv4_address_in_ipv6_do_not_share_a_count(context: Flask) -> None:
    for number in range(20):
        assert rate_limits.count(SIGN_IN, account="a@x.example", ip_address=f"::ffff:192.0.2.{number}") is None


@pytest.mark.parametrize("path", ["/sign-in", "/healthz", "/api/v1/events"])
def test_a_request_with_two_lengths_is_rejected(client: FlaskClient, path: str) -> None:
    both = {"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "chunked"}
    assert client.open(path, method="POST", environ_overrides=both).status_code in {400, 405}
    assert client.post("/api/v1/events", environ_overrides=both).status_code == 400
    one = {"HTTP_TRANSFER_ENCODING": "chunked"}
    assert client.get("/healthz", environ_overrides=one).status_code == 200


def run(tmp_path: Path, code: str) -> list[str]:
    """Run a program in a process that has the settings, and return the lines that it prints."""
    output, environment = tmp_path / "output", {**os.environ, **PRODUCTION, "PORTAL_PASSWORD": "of an operator"}
    assert wait(start("-c", code, environment=environment, output=output), 60) == 0, output.read_text()
    return output.read_text().splitlines()


@pytest.mark.slow
def test_a_web_process_keeps_no_secret_in_its_environment(tmp_path: Path) -> None:
    code = f"""
import os, wsgi
print([name for name in {SECRET_VARIABLES!r} if name in os.environ], wsgi.app.secret_key)
print([value for value in os.environ.values() if ':secret@' in value or 'only for tests' in value])
"""
    assert run(tmp_path, code) == [f"[] {TEST_SECRET}", "[]"]


@pytest.mark.slow
def test_a_process_of_the_web_server_keeps_no_secret_in_its_environment(tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["PORTAL_WEB_THREADS"] = "1"
from portal import server
server.create_front()
sys.stdout.write(f"{{[name for name in {SECRET_VARIABLES!r} if name in os.environ]}}\\n")  # print may write twice
"""
    assert [line for line in run(tmp_path, code) if "WARNING" not in line] == ["[]"]  # there is no database


@pytest.mark.slow
def test_a_command_keeps_its_environment(tmp_path: Path) -> None:
    code = """
import click, os, sys
from flask.cli import FlaskGroup, with_appcontext

@click.command("show")
@with_appcontext
def show():
    print(os.environ["PORTAL_PASSWORD"], "MIGRATION_DATABASE_URL" in os.environ)

group = FlaskGroup()
group.add_command(show)
group.main(["--app", "wsgi", "show"], standalone_mode=False)
"""
    assert run(tmp_path, code) == ["of an operator True"]
