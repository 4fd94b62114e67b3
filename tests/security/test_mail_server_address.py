"""A tenant enters an internal service as its mail server: the portal never connects to the operator's network."""

import re
import time
from collections import deque
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.service import get_server
from portal.mail_servers.smtp import network_policy, test_email
from portal.mail_servers.smtp.connect import Timeouts
from portal.tenants import service as tenant_service
from tests.due_emails import send_due_emails
from tests.fake_network import INTERNAL, PUBLIC, FakeInternet, allow_networks, internet, internet_only
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import SmtpPeer, silent_port
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, entered, key, peer, post, working_tenant

__all__ = ["internet", "internet_only", "key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

PAGE = "/tenants/acme.example/mail-server"
NOT_FOUND = "The mail server was not found."
REJECTIONS = re.compile("This address is not on the internet|is not a host name|Use port 25, 465, 587 or 2525")
HELD = ("held", "mail_server_rejected")
SPECIAL_PURPOSE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.5", "100.64.0.1", "127.0.0.1", "127.255.0.9", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::127.0.0.1", "::ffff:10.0.0.5", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("::ffff:0:7f00:1", "64:ff9b::10.0.0.5", "64:ff9b::7f00:1", "64:ff9b:1::9.9.9.9", "100::1", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:20::1", "2002:7f00:1::1", "2002:a00:5::"),
    *("3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1"),
]
OTHER_NOTATIONS = [
    *("127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "127.0.0.1.", "[::1]"),
    *("0x7F.0x0.0x0.0x1", "10.5", "\N{CIRCLED DIGIT ONE}0.0.0.5", "\N{FULLWIDTH DIGIT ONE}27.0.0.1", "127。0。0。1"),
]


def form(host: str, port: int = 587, **changes: str) -> dict[str, Any]:
    """Return the values that a tenant's administrator enters."""
    plain = {"provider": "smtp", "encryption": "none", "auth_mode": "none", "sender_email": "pbx@acme.example"}
    return {**plain, "host": host, "port": str(port), **changes}


def deliveries(app: Flask) -> list[tuple[str, str | None]]:
    with app.app_context():
        return [tuple(row) for row in sql("SELECT status, reason FROM deliveries ORDER BY id")]


def save_server(app: Flask, host: str, port: int = 587, owner: str | None = "acme.example", **changes: Any) -> Any:
    """Save a mail server as the page does, for the system without an owner."""
    with app.app_context():
        tenant = tenant_service.find(owner) if owner else None
        if tenant:
            enter_scope(tenant.id)
        return mail_server_service.save(tenant.id if tenant else None, entered(port, host=host, **changes))


def rewrite(app: Flask, **columns: Any) -> None:
    """Change the mail server of Acme without the form, as it may have been saved before there were rules."""
    with app.app_context():
        sql(f"UPDATE mail_servers SET {', '.join(f'{each} = :{each}' for each in columns)}", **columns)


def send_test(app: Flask, host: str, port: int) -> test_email.SendTestResult:
    """Send a test email as the page does."""
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        results = test_email.send_with_entered_settings(tenant, entered(port, host=host), ["admin@acme.example"])
        assert not isinstance(results, Refusal)
        return deque(results, maxlen=1).pop()


def retry_all(app: Flask) -> None:
    """Retry all waiting deliveries, as a worker does."""
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        sql("UPDATE mail_servers SET paused_until = NULL")
        send_due_emails()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that never answers. It has to be created before the fake internet replaces sockets."""
    with silent_port() as port:
        yield port


@pytest.fixture
def inside(internet: FakeInternet, internet_only: None) -> Iterator[SmtpPeer]:
    """An internal mail server, which listens at all IP addresses that no other peer has. Nobody may connect to it."""
    with SmtpPeer() as peer:
        internet.internal_port = peer.port
        yield peer


@pytest.mark.parametrize("address", SPECIAL_PURPOSE)
def test_a_special_purpose_ip_address_is_not_public(address: str) -> None:
    assert not network_policy.is_public(address)
    assert not network_policy.PUBLIC_INTERNET.allows(address, 25)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "100.128.0.1", "2620:fe::fe", "::ffff:9.9.9.9", "64:ff9b::909:909"]
)
def test_hosts_on_the_internet_are_public_at_smtp_ports(address: str) -> None:
    assert [port for port in range(1, 65536) if network_policy.PUBLIC_INTERNET.allows(address, port)] == [
        25,
        465,
        587,
        2525,
    ]


def test_the_form_rejects_internal_ip_addresses_and_other_ports(
    app: Flask, admin: FlaskClient, internet: FakeInternet, inside: SmtpPeer
) -> None:
    token = csrf_token(admin.get(PAGE).text)
    for host, port in ((INTERNAL, 25), ("127.1", 25), (PUBLIC, 80), ("mail.evil.example", 8025)):
        for action in (PAGE, f"{PAGE}/test"):
            answer = admin.post(action, data={"csrf_token": token, **form(host, port)})
            assert answer.status_code == 422, (host, action)
            assert REJECTIONS.search(answer.text), (host, action)
    with app.app_context():
        assert sql("SELECT count(*) FROM mail_servers")[0][0] == 0
    assert not internet.connections


def test_the_form_rejects_internal_ip_addresses_in_any_notation(app: Flask, acme: str, internet_only: None) -> None:
    with app.test_request_context():
        for host in (*SPECIAL_PURPOSE, *OTHER_NOTATIONS):
            typed = MailServerForm.from_values(form(host))
            assert isinstance(typed, MailServerForm)
            refused = mail_server_service.connection_settings(1, typed.entered_settings()) if typed.validate() else None
            assert refused is None or (isinstance(refused, Refusal) and refused.field == "host"), host


def test_servers_saved_before_the_rules_are_not_connected_to(
    app: Flask, post: Post, working_tenant: str, internet: FakeInternet, inside: SmtpPeer
) -> None:
    for host in ("127.1", "localhost"):
        rewrite(app, host=host, port=25)
        answer = post().json
        assert (answer["status"], answer["reason"]) == HELD
    with app.app_context():
        tenant, server = tenant_service.find(working_tenant), get_server(1)
        assert tenant is not None
        assert server is not None
        for host, port in [
            *((host, 25) for host in (*SPECIAL_PURPOSE, *OTHER_NOTATIONS)),
            *((PUBLIC, port) for port in (1, 80, 6379)),
        ]:
            server.host, server.port = host, port
            results = test_email.send_with_saved_server(tenant, server, ["admin@acme.example"])
            assert deque(results, maxlen=1).pop().headline == NOT_FOUND, host
    assert not internet.connections


def test_a_name_that_resolves_to_an_internal_ip_address_is_never_connected_to(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, internet: FakeInternet, inside: SmtpPeer
) -> None:
    host = internet.add_name(["127.0.0.1", "::1", INTERNAL])
    assert NOT_FOUND in submit(admin, PAGE, f"{PAGE}/test", **form(host)).get_data(as_text=True)
    assert submit(admin, PAGE, **form(host)).status_code == 303
    answer = post().json
    assert (answer["status"], answer["reason"]) == HELD
    retry_all(app)
    assert len(internet.lookups) == 2
    assert submit(admin, PAGE, **form(host)).status_code == 303  # which releases held emails
    retry_all(app)
    assert deliveries(app) == [HELD]
    assert len(internet.lookups) == 3
    assert not internet.connections
    assert not inside.conversations


def test_a_name_may_not_resolve_to_a_special_purpose_ip_address(
    app: Flask, working_tenant: str, internet: FakeInternet, inside: SmtpPeer
) -> None:
    for address in SPECIAL_PURPOSE:
        assert send_test(app, internet.add_name([address]), 25).headline == NOT_FOUND, address
    assert not internet.connections


@pytest.mark.parametrize("first", [[PUBLIC], [PUBLIC, INTERNAL], [INTERNAL, PUBLIC]])
def test_the_checked_ip_address_is_the_one_connected_to(
    app: Flask,
    post: Post,
    working_tenant: str,
    internet: FakeInternet,
    inside: SmtpPeer,
    peer: SmtpPeer,
    first: list[str],
) -> None:
    """DNS rebinding: the first lookup has a public IP address, the next one an internal one."""
    internet.ports[PUBLIC] = peer.port
    save_server(app, internet.add_name(first, [INTERNAL]))
    assert post().json["status"] == "sent"
    assert len(internet.lookups) == 1
    assert internet.connections == [(PUBLIC, 587)]
    assert len(peer.messages) == 1
    assert not inside.conversations


def test_a_name_that_changes_to_an_internal_ip_address_before_a_retry(
    app: Flask, post: Post, working_tenant: str, internet: FakeInternet, inside: SmtpPeer, peer: SmtpPeer
) -> None:
    internet.ports[PUBLIC], peer.script = peer.port, {"greeting": "451 later"}
    save_server(app, internet.add_name([PUBLIC], [INTERNAL]))
    assert post().json["status"] == "deferred"
    retry_all(app)
    assert deliveries(app) == [HELD]
    assert internet.connections == [(PUBLIC, 587)]


def test_a_kept_connection_needs_no_lookup(
    app: Flask, post: Post, working_tenant: str, internet: FakeInternet, internet_only: None, peer: SmtpPeer
) -> None:
    internet.ports[PUBLIC] = peer.port
    save_server(app, internet.add_name([PUBLIC], [INTERNAL]))
    assert [post().json["status"] for _ in range(3)] == ["sent"] * 3
    assert len(internet.lookups) == len(internet.connections) == len(peer.conversations) == 1


def test_the_systems_server_may_be_anywhere(
    app: Flask,
    system: FlaskClient,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    internet: FakeInternet,
    inside: SmtpPeer,
) -> None:
    page = "/system/mail-server"
    for host, port in ((INTERNAL, 2500), (internet.add_name([INTERNAL]), 2500), ("127.0.0.1", 25)):
        assert submit(system, page, **form(host, port)).status_code == 303
        tested = submit(system, page, f"{page}/test", **form(host, port)).get_data(as_text=True)
        assert "the mail server accepted the test email" in tested
    with app.app_context():
        mail_server_service.share(True)
    assert submit(admin, PAGE, f"{PAGE}/use-shared").status_code == 303
    assert "accepted the test email" in submit(admin, PAGE, f"{PAGE}/test").get_data(as_text=True)
    assert post().json["status"] == "sent"
    assert [mail.recipients for mail in inside.messages][-1] == ["ops@acme.example", "night@acme.example"]


def test_a_tenant_cannot_use_a_kept_connection_of_the_system(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, internet: FakeInternet, inside: SmtpPeer
) -> None:
    """With the system's own settings: a kept connection would match them."""
    relay = internet.add_name([INTERNAL])
    save_server(app, relay, owner=None)
    with app.app_context():
        mail_server_service.share(True)
    submit(admin, PAGE, f"{PAGE}/use-shared")
    assert post().json["status"] == "sent"
    save_server(app, relay)
    assert post().json["status"] == "held"
    assert len(inside.messages) == len(internet.connections) == 1
    submit(admin, PAGE, f"{PAGE}/use-shared")
    assert post().json["status"] == "sent"
    assert len(inside.conversations) == 1


def test_the_operator_can_allow_networks(
    app: Flask,
    post: Post,
    working_tenant: str,
    internet: FakeInternet,
    inside: SmtpPeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_networks(app, monkeypatch, ip_network("10.0.0.0/24"), ip_network("fd00::/64"))
    for host in (INTERNAL, f"::ffff:{INTERNAL}", internet.add_name([INTERNAL]), internet.add_name(["fd00::5"])):
        assert not isinstance(save_server(app, host, 2500), Refusal)
        assert post().json["status"] == "sent"
    for host, port in (("10.0.1.5", 25), ("::1", 25), ("fd00:0:0:1::5", 25), (PUBLIC, 2500)):
        assert isinstance(save_server(app, host, port), Refusal)
    for host, port in ((internet.add_name(["10.0.1.5"]), 25), (internet.add_name([PUBLIC]), 2500)):
        assert not isinstance(save_server(app, host, port), Refusal)
        assert post().json["status"] == "held"
    assert {host for host, _ in internet.connections} == {INTERNAL, f"::ffff:{INTERNAL}", "fd00::5"}


def test_nothing_reveals_the_internal_network(
    app: Flask,
    working_tenant: str,
    silent: int,
    internet: FakeInternet,
    inside: SmtpPeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service that responds, one that does not, a closed port and an unknown name all look the same."""
    monkeypatch.setattr(test_email, "TIMEOUTS", Timeouts(connect=60, command=60, total=60))
    internet.ports = {"10.0.0.7": silent, "10.0.0.8": 1}
    hosts = [internet.add_name([each]) for each in (INTERNAL, "10.0.0.7", "10.0.0.8", "127.0.0.1", "::1")]
    answers, seconds = set(), []
    for host in [*hosts, "nobody.evil.example"]:
        for port in (25, 465, 587, 2525):
            began = time.monotonic()
            answers.add(send_test(app, host, port))
            seconds.append(time.monotonic() - began)
    (answer,) = answers
    assert answer.headline == NOT_FOUND
    assert max(seconds) < 30, "nothing waits for the one that does not respond"
    assert not internet.connections


BANNERS = [
    "SSH-2.0-SECRET_9.9",
    "HTTP/1.1 400 SECRET",
    "<html>SECRET",
    "200 SECRET news server ready",
    "220 \x01SECRET",
    "220 SECRET\udcff",
    "250 SECRET",
    "354 SECRET",
    "500 SECRET unknown command",
    "554 5.7.1 SECRET",
    "421 4.3.2 SECRET",
    "-ERR SECRET",
    "220" + "-SECRET\n220" * 9000,
]


def test_the_reply_of_another_service_is_not_passed_on(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    internet: FakeInternet,
    internet_only: None,
    peer: SmtpPeer,
    subtests: pytest.Subtests,
) -> None:
    internet.ports[PUBLIC] = peer.port
    for number, banner in enumerate(BANNERS):
        with subtests.test(ascii(banner[:40])):
            peer.script = {"greeting": banner}
            peer.conversations.clear()
            with app.app_context():
                sql("DELETE FROM rate_limits")  # of test emails
            save_server(app, PUBLIC)
            answer = submit(admin, PAGE, f"{PAGE}/test", **form(PUBLIC)).get_data(as_text=True)
            assert re.search("Connected, but (no SMTP session was started|not to a mail server)\\.", answer)
            assert "SECRET" not in answer
            reported = post(data=CALL_LOST | {"queue_number": str(number)}).json
            assert reported["deliveries"][0]["recipients"][0]["stage"] == "greeting"
            assert "SECRET" not in str(reported)
            with app.app_context():
                assert "SECRET" not in str(sql("SELECT * FROM delivery_recipients"))
                assert "SECRET" not in str(sql("SELECT pause_reason FROM mail_servers"))
            assert peer.conversations
            assert all(each.verbs in ([], ["QUIT"]) for each in peer.conversations)


def test_a_test_is_limited_by_its_timeouts_whatever_a_name_resolves_to(
    app: Flask,
    working_tenant: str,
    silent: int,
    internet: FakeInternet,
    internet_only: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = [f"9.9.9.{each}" for each in range(200)]
    internet.ports = dict.fromkeys(addresses, silent)
    monkeypatch.setattr(test_email, "TIMEOUTS", Timeouts(connect=0.3, command=60, total=60, reply=60))
    began = time.monotonic()
    assert send_test(app, internet.add_name(addresses), 25).headline == "The mail server does not answer."
    assert time.monotonic() - began < 30
