"""A tenant names a mail server that is none: a service inside the operator's house. Nothing inside is ever dialled."""

import re
import time
from collections import deque
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.deliveries import retry
from portal.errors import Refusal
from portal.mail_servers import reach, settings, testing
from portal.mail_servers.connection import Budget
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.selection import of_owner
from portal.tenants import directory
from tests.internet import INSIDE, PUBLIC, Internet, allow, internet, strict
from tests.pages import post as submit
from tests.ready import Post, entered, key, peer, post, ready
from tests.smtp_peer import SmtpPeer, unanswering_port
from tests.sql import sql

__all__ = ["internet", "key", "peer", "post", "ready", "strict"]

PAGE = "/tenants/acme.example/mail-server"
NOT_FOUND = "The mail server was not found."
WORDS = re.compile("This address is not on the internet|is not a host name|Use port 25, 465, 587 or 2525")
HELD = ("held", "mail_server_rejected")
SPECIAL = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.5", "100.64.0.1", "127.0.0.1", "127.255.0.9", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::127.0.0.1", "::ffff:10.0.0.5", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("::ffff:0:7f00:1", "64:ff9b::10.0.0.5", "64:ff9b::7f00:1", "64:ff9b:1::9.9.9.9", "100::1", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:20::1", "2002:7f00:1::1", "2002:a00:5::"),
    *("3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1"),
]
SPELLED = [
    *("127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "127.0.0.1.", "[::1]"),
    *("0x7F.0x0.0x0.0x1", "10.5", "\N{CIRCLED DIGIT ONE}0.0.0.5", "\N{FULLWIDTH DIGIT ONE}27.0.0.1", "127。0。0。1"),
]


def form(host: str, port: int = 587, **changes: str) -> dict[str, Any]:
    """Return what a tenant's administrator types in."""
    plain = {"provider": "smtp", "encryption": "none", "auth_mode": "none", "sender_email": "pbx@acme.example"}
    return {**plain, "host": host, "port": str(port), **changes}


def reports(app: Flask) -> list[tuple[str, str | None]]:
    with app.app_context():
        return [tuple(row) for row in sql("SELECT status, reason FROM deliveries ORDER BY id")]


def use(app: Flask, host: str, port: int = 587, owner: str | None = "acme.example", **changes: Any) -> Any:
    """Save a mail server as the page does, for the system where there is no owner."""
    with app.app_context():
        tenant = directory.find(owner) if owner else None
        if tenant:
            enter_scope(tenant.id)
        return settings.save(tenant.id if tenant else None, entered(port, host=host, **changes))


def rewrite(app: Flask, **columns: Any) -> None:
    """Change the mail server of Acme past all forms: as it was saved before there were rules."""
    with app.app_context():
        sql(f"UPDATE mail_servers SET {', '.join(f'{each} = :{each}' for each in columns)}", **columns)


def try_out(app: Flask, host: str, port: int) -> testing.Result:
    """Send a test e-mail as the page does."""
    with app.app_context():
        tenant = directory.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        talk = testing.send_entered(tenant, entered(port, host=host), ["admin@acme.example"])
        assert not isinstance(talk, Refusal)
        return deque(talk, maxlen=1).pop()


def try_again(app: Flask) -> None:
    """Do what a worker does with all that waits."""
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        sql("UPDATE mail_servers SET paused_until = NULL")
        waiting = retry.due(100)
    for tenant_id, delivery_id in waiting:
        with app.app_context():
            retry.retry(tenant_id, delivery_id)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port behind a firewall. It comes before the internet, which it is not to be found on."""
    with unanswering_port() as port:
        yield port


@pytest.fixture
def inside(internet: Internet, strict: None) -> Iterator[SmtpPeer]:
    """A mail server inside, which answers at all addresses that are nobody else's. Nobody may come to it."""
    with SmtpPeer() as peer:
        internet.inside = peer.port
        yield peer


@pytest.mark.parametrize("address", SPECIAL)
def test_an_address_of_special_purpose_is_not_public(address: str) -> None:
    assert not reach.is_public(address)
    assert not reach.INTERNET.admits(address, 25)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "100.128.0.1", "2620:fe::fe", "::ffff:9.9.9.9", "64:ff9b::909:909"]
)
def test_machines_on_the_internet_are_public_at_the_ports_of_mail(address: str) -> None:
    assert [port for port in range(1, 65536) if reach.INTERNET.admits(address, port)] == [25, 465, 587, 2525]


@pytest.mark.parametrize(("host", "port"), [(INSIDE, 25), ("127.1", 25), (PUBLIC, 80), ("mail.evil.example", 8025)])
def test_an_address_inside_or_another_port_is_refused_at_the_form(
    app: Flask, admin: FlaskClient, internet: Internet, inside: SmtpPeer, host: str, port: int
) -> None:
    for action in (PAGE, f"{PAGE}/test"):
        answer = submit(admin, PAGE, action, **form(host, port))
        assert answer.status_code == 422
        assert WORDS.search(answer.get_data(as_text=True))
    with app.app_context():
        assert sql("SELECT count(*) FROM mail_servers")[0][0] == 0
    assert not internet.dialled


def test_no_spelling_of_an_address_inside_gets_past_the_form(app: Flask, acme: str, strict: None) -> None:
    with app.test_request_context():
        for host in (*SPECIAL, *SPELLED):
            typed = MailServerForm.from_values(form(host))
            assert isinstance(typed, MailServerForm)
            refused = settings.complete(1, typed.entered()) if typed.validate() else None
            assert refused is None or (isinstance(refused, Refusal) and refused.field == "host"), host


def test_none_that_was_saved_before_is_dialled(
    app: Flask, post: Post, ready: str, internet: Internet, inside: SmtpPeer
) -> None:
    for host in ("127.1", "localhost"):
        rewrite(app, host=host, port=25)
        answer = post().json
        assert (answer["status"], answer["reason"]) == HELD
    with app.app_context():
        tenant, server = directory.find(ready), of_owner(1)
        assert tenant is not None
        assert server is not None
        for host, port in [*((host, 25) for host in (*SPECIAL, *SPELLED)), *((PUBLIC, port) for port in (1, 80, 6379))]:
            server.host, server.port = host, port
            talk = testing.send_saved(tenant, server, ["admin@acme.example"])
            assert deque(talk, maxlen=1).pop().sentence == NOT_FOUND, host
    assert not internet.dialled


def test_a_name_that_leads_inside_is_not_dialled_on_any_way(
    app: Flask, admin: FlaskClient, post: Post, ready: str, internet: Internet, inside: SmtpPeer
) -> None:
    host = internet.leads_to(["127.0.0.1", "::1", INSIDE])
    assert NOT_FOUND in submit(admin, PAGE, f"{PAGE}/test", **form(host)).get_data(as_text=True)
    assert submit(admin, PAGE, **form(host)).status_code == 303
    answer = post().json
    assert (answer["status"], answer["reason"]) == HELD
    try_again(app)
    assert len(internet.looked_up) == 2
    assert submit(admin, PAGE, **form(host)).status_code == 303  # which lets held mail go on
    try_again(app)
    assert reports(app) == [HELD]
    assert len(internet.looked_up) == 3
    assert not internet.dialled
    assert not inside.conversations


def test_a_name_may_lead_to_no_address_of_special_purpose(
    app: Flask, ready: str, internet: Internet, inside: SmtpPeer
) -> None:
    for address in SPECIAL:
        assert try_out(app, internet.leads_to([address]), 25).sentence == NOT_FOUND, address
    assert not internet.dialled


@pytest.mark.parametrize("answers", [([PUBLIC], [INSIDE]), ([PUBLIC, INSIDE], [INSIDE]), ([INSIDE, PUBLIC], [INSIDE])])
def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    app: Flask, post: Post, ready: str, internet: Internet, inside: SmtpPeer, peer: SmtpPeer, answers: Any
) -> None:
    """Rebinding: the name server answers a check with one address, and whoever asks again with another."""
    internet.ports[PUBLIC] = peer.port
    use(app, internet.leads_to(*answers))
    assert post().json["status"] == "sent"
    assert len(internet.looked_up) == 1
    assert internet.dialled == [(PUBLIC, 587)]
    assert len(peer.mails) == 1
    assert not inside.conversations


def test_a_name_that_moves_inside_while_a_mail_waits(
    app: Flask, post: Post, ready: str, internet: Internet, inside: SmtpPeer, peer: SmtpPeer
) -> None:
    internet.ports[PUBLIC], peer.script = peer.port, {"greeting": "451 later"}
    use(app, internet.leads_to([PUBLIC], [INSIDE]))
    assert post().json["status"] == "deferred"
    try_again(app)
    assert reports(app) == [HELD]
    assert internet.dialled == [(PUBLIC, 587)]


def test_a_kept_session_asks_no_name_server(
    app: Flask, post: Post, ready: str, internet: Internet, strict: None, peer: SmtpPeer
) -> None:
    internet.ports[PUBLIC] = peer.port
    use(app, internet.leads_to([PUBLIC], [INSIDE]))
    assert [post().json["status"] for _ in range(3)] == ["sent"] * 3
    assert len(internet.looked_up) == len(internet.dialled) == len(peer.conversations) == 1


def test_the_systems_own_server_may_be_anywhere(
    app: Flask, system: FlaskClient, admin: FlaskClient, post: Post, ready: str, internet: Internet, inside: SmtpPeer
) -> None:
    page = "/system/mail-server"
    for host, port in ((INSIDE, 2500), (internet.leads_to([INSIDE]), 2500), ("127.0.0.1", 25)):
        assert submit(system, page, **form(host, port)).status_code == 303
        tested = submit(system, page, f"{page}/test", **form(host, port)).get_data(as_text=True)
        assert "the mail server took the test e-mail" in tested
    with app.app_context():
        settings.share(True)
    assert submit(admin, PAGE, f"{PAGE}/use-shared").status_code == 303
    assert "took the test e-mail" in submit(admin, PAGE, f"{PAGE}/test-shared").get_data(as_text=True)
    assert post().json["status"] == "sent"
    assert [mail.recipients for mail in inside.mails][-1] == ["ops@acme.example", "night@acme.example"]


def test_a_tenant_does_not_get_hold_of_a_session_of_the_system(
    app: Flask, admin: FlaskClient, post: Post, ready: str, internet: Internet, inside: SmtpPeer
) -> None:
    """The very settings that the system has: a session is kept that they would fit."""
    relay = internet.leads_to([INSIDE])
    use(app, relay, owner=None)
    with app.app_context():
        settings.share(True)
    submit(admin, PAGE, f"{PAGE}/use-shared")
    assert post().json["status"] == "sent"
    use(app, relay)
    assert post().json["status"] == "held"
    assert len(inside.mails) == len(internet.dialled) == 1
    submit(admin, PAGE, f"{PAGE}/use-shared")
    assert post().json["status"] == "sent"
    assert len(inside.conversations) == 1


def test_the_operator_allows_networks(
    app: Flask, post: Post, ready: str, internet: Internet, inside: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(app, monkeypatch, ip_network("10.0.0.0/24"), ip_network("fd00::/64"))
    for host in (INSIDE, f"::ffff:{INSIDE}", internet.leads_to([INSIDE]), internet.leads_to(["fd00::5"])):
        assert not isinstance(use(app, host, 2500), Refusal)
        assert post().json["status"] == "sent"
    for host, port in (("10.0.1.5", 25), ("::1", 25), ("fd00:0:0:1::5", 25), (PUBLIC, 2500)):
        assert isinstance(use(app, host, port), Refusal)
    for host, port in ((internet.leads_to(["10.0.1.5"]), 25), (internet.leads_to([PUBLIC]), 2500)):
        assert not isinstance(use(app, host, port), Refusal)
        assert post().json["status"] == "held"
    assert {host for host, _ in internet.dialled} == {INSIDE, f"::ffff:{INSIDE}", "fd00::5"}


def test_nothing_tells_what_is_inside(
    app: Flask, ready: str, silent: int, internet: Internet, inside: SmtpPeer
) -> None:
    """A service that answers, one that does not, a port that is closed, and a name that nobody has: all the same."""
    internet.ports = {"10.0.0.7": silent, "10.0.0.8": 1}
    hosts = [internet.leads_to([each]) for each in (INSIDE, "10.0.0.7", "10.0.0.8", "127.0.0.1", "::1")]
    answers, seconds = set(), []
    for host in [*hosts, "nobody.evil.example"]:
        for port in (25, 465, 587, 2525):
            began = time.monotonic()
            answers.add(try_out(app, host, port))
            seconds.append(time.monotonic() - began)
    (answer,) = answers
    assert answer.sentence == NOT_FOUND
    assert max(seconds) < 0.5
    assert not internet.dialled


@pytest.mark.parametrize(
    "banner",
    [
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
    ],
)
def test_what_another_service_says_is_not_passed_on(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    ready: str,
    internet: Internet,
    strict: None,
    peer: SmtpPeer,
    banner: str,
) -> None:
    internet.ports[PUBLIC], peer.script = peer.port, {"greeting": banner}
    use(app, PUBLIC)
    answer = submit(admin, PAGE, f"{PAGE}/test", **form(PUBLIC)).get_data(as_text=True)
    assert "Connected, but the mail server did not say hello." in answer
    assert "SECRET" not in answer
    assert "SECRET" not in str(post().json)
    with app.app_context():
        assert "SECRET" not in str(sql("SELECT * FROM delivery_recipients"))
        assert "SECRET" not in str(sql("SELECT pause_text FROM mail_servers"))
    assert peer.conversations
    assert all(each.verbs in ([], ["QUIT"]) for each in peer.conversations)


def test_a_tests_time_is_bounded_whatever_a_name_leads_to(
    app: Flask, ready: str, silent: int, internet: Internet, strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"9.9.9.{each}" for each in range(200)]
    internet.ports = dict.fromkeys(addresses, silent)
    monkeypatch.setattr(testing, "BUDGET", Budget(connect=0.3, command=0.3, total=0.5, reply=0.3))
    began = time.monotonic()
    assert try_out(app, internet.leads_to(addresses), 25).sentence == "No connection was made."
    assert time.monotonic() - began < 1
