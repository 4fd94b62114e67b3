"""The doctor on what is reached over the network: certificate, proxy, mail server, sender's domain, provider."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from pydantic import SecretStr

from portal.accounts.single_sign_on import provider as portal_provider
from portal.doctor import echo
from portal.doctor.diagnoses import State
from tests.conftest import close_connections
from tests.dns_server import DnsFault, DnsServer
from tests.doctor.conftest import SENDER_DOMAIN, Portal
from tests.doctor.test_doctor import is_seen
from tests.openid_provider import DISCOVERY, OpenIdProvider
from tests.openid_provider import running as running_provider
from tests.reverse_proxy import Headers, running_proxy, well_behaved
from tests.smtp_peer import Fault, SmtpPeer

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def use_certificate(portal: Portal, stack: ExitStack, certificate: trustme.LeafCert) -> dict[str, str]:
    """Start a proxy with another certificate, and return the setting that names it."""
    portal.proxy = stack.enter_context(running_proxy(certificate))
    return {"portal_url": f"https://localhost:{portal.proxy.server_port}"}


# The certificate


def test_a_certificate_that_has_expired_is_seen(portal: Portal, authority: trustme.CA, stack: ExitStack) -> None:
    now = datetime.now(UTC)
    expired = authority.issue_cert("localhost", not_before=now - 2 * DAY, not_after=now - DAY)
    diagnosis = portal.worst(**use_certificate(portal, stack, expired))
    assert is_seen(diagnosis, "certificate", State.FAILED, "expired", "Renew it")


def test_a_certificate_that_expires_soon_is_seen(portal: Portal, authority: trustme.CA, stack: ExitStack) -> None:
    ends = datetime.now(UTC) + 3 * DAY + timedelta(hours=1)
    diagnosis = portal.worst(**use_certificate(portal, stack, authority.issue_cert("localhost", not_after=ends)))
    assert is_seen(diagnosis, "certificate", State.WARNING, "valid for 3 more days", "Renew it")


def test_a_certificate_for_another_name_is_seen(portal: Portal, authority: trustme.CA, stack: ExitStack) -> None:
    diagnosis = portal.worst(**use_certificate(portal, stack, authority.issue_cert("other.example")))
    assert is_seen(diagnosis, "certificate", State.FAILED, "is not for localhost", "with this name")


def test_a_certificate_of_an_unknown_authority_is_seen(portal: Portal, stack: ExitStack) -> None:
    diagnosis = portal.worst(**use_certificate(portal, stack, trustme.CA().issue_cert("localhost")))
    assert is_seen(diagnosis, "certificate", State.FAILED, "not accepted", "private authority")


def test_a_server_without_tls_is_seen(portal: Portal, stack: ExitStack) -> None:
    port = stack.enter_context(SmtpPeer()).port
    diagnoses = portal.examine(portal_url=f"https://localhost:{port}")
    assert is_seen(diagnoses["certificate"], "certificate", State.FAILED, "TLS could not be negotiated", "TLS 1.2")
    assert is_seen(diagnoses["reverse proxy"], "reverse proxy", State.FAILED, "TLS could not be negotiated", "proxy")


def test_a_closed_port_is_seen(portal: Portal) -> None:
    diagnoses = portal.examine(portal_url="https://localhost:1")
    assert is_seen(diagnoses["certificate"], "certificate", State.FAILED, "Connection refused", "Start the proxy")
    assert is_seen(
        diagnoses["reverse proxy"], "reverse proxy", State.FAILED, "Connection refused", "Start web and proxy"
    )


# The reverse proxy


def test_a_web_server_that_is_down_is_seen(portal: Portal) -> None:
    diagnosis = portal.worst(serves=False)
    assert is_seen(diagnosis, "reverse proxy", State.FAILED, "answered with status 502", "Start web and proxy")


def test_another_portal_is_seen(portal: Portal) -> None:
    """It does not accept the token, which another secret key signed."""
    with portal_served_with_another_key(portal):
        diagnosis = portal.worst(serves=False)
    assert is_seen(diagnosis, "reverse proxy", State.FAILED, "answered with status 404", "the same SECRET_KEY")


def portal_served_with_another_key(portal: Portal) -> ExitStack:
    from tests.reverse_proxy import serving

    stack = ExitStack()
    other = portal.app(secret_key=SecretStr("another secret key, which is just as long"))
    portal.proxy.target = stack.enter_context(serving(other))
    stack.callback(close_connections, other)
    return stack


def forget_scheme(headers: Headers) -> None:
    well_behaved(headers)
    del headers["X-Forwarded-Proto"]


def pass_on_clients_address(headers: Headers) -> None:
    address = headers["X-Forwarded-For"]
    well_behaved(headers)
    headers["X-Forwarded-For"] = address


def pass_on_clients_host(headers: Headers) -> None:
    host = headers["X-Forwarded-Host"]
    well_behaved(headers)
    headers["X-Forwarded-Host"] = host


def replace_host(headers: Headers) -> None:
    well_behaved(headers)
    headers["Host"] = headers["X-Forwarded-Host"] = "127.0.0.1:8000"


def add_two_proxies(headers: Headers) -> None:
    well_behaved(headers)
    headers["X-Forwarded-For"] += ", 10.0.0.1"


def replace_clients_address(headers: Headers) -> None:
    well_behaved(headers)
    headers["X-Forwarded-For"] = "203.0.113.9"


@pytest.mark.parametrize(
    ("change_headers", "trusted", "state", "seen", "advice"),
    [
        (well_behaved, 0, State.FAILED, "number of proxies is 1, and TRUSTED_PROXIES is 0", "TRUSTED_PROXIES=1"),
        (well_behaved, 2, State.FAILED, "Clients can choose the IP address", "TRUSTED_PROXIES=1"),
        (add_two_proxies, 1, State.FAILED, "number of proxies is 2", "TRUSTED_PROXIES=2"),
        (pass_on_clients_address, 1, State.FAILED, "Clients can choose the IP address", "TRUSTED_PROXIES=0"),
        (forget_scheme, 1, State.FAILED, "takes the request for http", "X-Forwarded-Proto"),
        (pass_on_clients_host, 1, State.WARNING, "passes on the X-Forwarded-Host", "set X-Forwarded-Host"),
        (replace_host, 1, State.FAILED, "takes 127.0.0.1:8000 for the requested host", "Host header"),
    ],
)
def test_wrong_headers_are_seen(
    portal: Portal, change_headers: object, trusted: int, state: State, seen: str, advice: str
) -> None:
    portal.proxy.change_headers = change_headers  # type: ignore[assignment]
    diagnosis = portal.worst(trusted_proxies=trusted)
    assert is_seen(diagnosis, "reverse proxy", state, seen, advice)


def test_a_proxy_that_replaces_the_clients_header_is_right(portal: Portal) -> None:
    portal.proxy.change_headers = replace_clients_address
    assert portal.examine()["reverse proxy"].state is State.OK


def test_the_portal_shows_a_request_only_to_its_doctor(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    app, other = portal.app(), portal.app(secret_key=SecretStr("another secret key, which is just as long"))
    browser = app.test_client()
    with app.app_context():
        token = echo._serializer().dumps("x")
    with other.app_context():
        foreign = echo._serializer().dumps("x")
    shown = browser.get(f"/doctor/{token}")
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store")
    assert set(shown.get_json()) == {"scheme", "host", "client", "forwarded_for", "trusted_proxies"}
    assert "Set-Cookie" not in shown.headers
    assert [browser.get(f"/doctor/{wrong}").status_code for wrong in (foreign, "x", token[:-1], "a.b.c")] == [404] * 4
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + echo.MAX_AGE + 2)
    assert browser.get(f"/doctor/{token}").status_code == 404
    for used in (app, other):
        close_connections(used)


# The mail server


def test_a_system_without_a_mail_server_is_seen(portal: Portal) -> None:
    portal.run("DELETE FROM mail_servers")
    assert is_seen(portal.worst(), "mail server", State.WARNING, "no mail server", "mail-server set --system")


def test_a_password_that_the_mail_server_rejects_is_seen(portal: Portal) -> None:
    portal.peer.accounts = {"mailer": "another password"}
    assert is_seen(portal.worst(), "mail server", State.FAILED, "535", "password")


def test_a_mail_server_that_is_down_is_seen(portal: Portal) -> None:
    portal.run("UPDATE mail_servers SET port = 1")
    assert is_seen(portal.worst(), "mail server", State.FAILED, "127.0.0.1, port 1: The connection was refused", "port")


def test_a_mail_server_with_an_unknown_certificate_is_seen(portal: Portal, stack: ExitStack) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    peer = stack.enter_context(SmtpPeer(certificate=certificate, accounts=portal.peer.accounts))
    portal.run(f"UPDATE mail_servers SET port = {peer.port}")
    assert is_seen(portal.worst(), "mail server", State.FAILED, "certificate is not accepted", "certificate")


def test_a_mail_server_without_encryption_is_seen(portal: Portal, stack: ExitStack) -> None:
    peer = stack.enter_context(SmtpPeer(accounts=portal.peer.accounts))
    portal.run(f"UPDATE mail_servers SET port = {peer.port}")
    assert is_seen(portal.worst(), "mail server", State.FAILED, "does not offer STARTTLS", "STARTTLS")


def test_a_silent_mail_server_is_seen_in_time(portal: Portal) -> None:
    portal.peer.script = {"greeting": Fault.SILENCE}
    began_at = time.monotonic()
    assert is_seen(portal.worst(), "mail server", State.FAILED, "No response in time", "")
    assert time.monotonic() - began_at < 25


def test_a_mail_server_that_rejected_emails_is_seen(portal: Portal) -> None:
    portal.run("UPDATE mail_servers SET rejected_at = now()")
    diagnosis = portal.examine()["mail server"]
    assert is_seen(diagnosis, "mail server", State.WARNING, "But it rejected an email", "test email")


# The sender's domain


def test_a_domain_without_records_is_seen(portal: Portal, dns_server: DnsServer) -> None:
    dns_server.records.pop((SENDER_DOMAIN, "TXT"))
    diagnosis = portal.worst()
    assert is_seen(diagnosis, "sender's domain", State.WARNING, f"SPF of {SENDER_DOMAIN}", "v=spf1")


def test_name_servers_that_do_not_answer_are_no_failure(portal: Portal, dns_server: DnsServer) -> None:
    dns_server.faults[SENDER_DOMAIN] = DnsFault.SERVFAIL
    diagnosis = portal.examine()["sender's domain"]
    assert (diagnosis.state, "did not respond" in diagnosis.seen) == (State.SKIPPED, True)


# Single sign-on


def test_a_provider_that_does_not_respond_is_seen(
    portal: Portal, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_provider, "_documents", {})
    monkeypatch.setattr(portal_provider, "_silent_until", {})
    provider = stack.enter_context(running_provider(OpenIdProvider()))
    assert portal.examine(**provider.settings)["single sign-on"].state is State.OK
    provider.answers[DISCOVERY] = (503, b"")
    portal_provider._documents.clear()
    diagnosis = portal.worst(**provider.settings)
    assert is_seen(diagnosis, "single sign-on", State.FAILED, "The provider does not work", "single-sign-on check")
