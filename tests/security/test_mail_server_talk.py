"""An attacker between the portal and a mail server, or with its name, gets no password and no message."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.tenants import service as tenant_service
from tests.fake_network import INTERNAL, PUBLIC, FakeInternet, allow_networks, internet, internet_only
from tests.mail_servers.conftest import authority, ca_file
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import LOCAL, Fault, Script, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Answer, Post, entered, key, peer, post, working_tenant

__all__ = ["authority", "ca_file", "internet", "internet_only", "key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

NAME = "mail.acme.example"
USER, PASSWORD = "mailer@acme.example", "Geheim-Straße-9"
PAGE = "/tenants/acme.example/mail-server"
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
LOGIN = base64.b64encode(PASSWORD.encode()).decode()
QUEUES = count(8000)
Issue = Callable[[trustme.CA], trustme.LeafCert]


@pytest.fixture
def name(app: Flask, internet: FakeInternet, monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> str:
    """The host name of Acme's mail server, whose certificate is from an authority that the operator trusts."""
    allow_networks(app, monkeypatch, mail_ca_file=ca_file)
    internet.names[NAME] = [[PUBLIC]]
    return NAME


def save_server(app: Flask, owner: str | None = "acme.example", **changes: Any) -> Any:
    """Save a mail server with sign-in, as the page does."""
    with app.app_context():
        tenant = tenant_service.find(owner) if owner else None
        if tenant:
            enter_scope(tenant.id)
        values = {"host": NAME, "auth_mode": AuthMode.AUTO, "username": USER, "password": PASSWORD, **changes}
        return mail_server_service.save(tenant.id if tenant else None, entered(values.pop("port", 587), **values))


def report(post: Post) -> Answer:
    """Report a lost call of a queue that has lost no other: a storm would hold the email back."""
    return post(data=CALL_LOST | {"queue_number": str(next(QUEUES))})


def status(post: Post) -> str:
    answer = report(post)
    assert answer.status_code == 200
    return str(answer.json["status"])


def commands(*peers: SmtpPeer) -> str:
    return " ".join(command for peer in peers for each in peer.conversations for command in each.commands)


CERTIFICATES: dict[str, Issue] = {
    "unknown authority": lambda _: trustme.CA().issue_cert(NAME),
    "other name": lambda authority: authority.issue_cert("mail.evil.example"),
    "IP address": lambda authority: authority.issue_cert(PUBLIC),
    "parent domain": lambda authority: authority.issue_cert("acme.example"),
    "expired": lambda authority: authority.issue_cert(NAME, not_after=datetime.now(UTC) - timedelta(days=1)),
}


def test_an_attacker_in_the_middle_with_a_wrong_certificate_gets_nothing(
    app: Flask,
    post: Post,
    working_tenant: str,
    authority: trustme.CA,
    name: str,
    internet: FakeInternet,
    subtests: pytest.Subtests,
) -> None:
    for kind, encryption in product(CERTIFICATES, (Encryption.STARTTLS, Encryption.TLS)):
        certificate, implicit = CERTIFICATES[kind](authority), encryption is Encryption.TLS
        with (
            subtests.test(kind, encryption=encryption),
            SmtpPeer(certificate=certificate, implicit_tls=implicit, accounts={USER: PASSWORD}) as attacker,
        ):
            internet.ports[PUBLIC] = attacker.port
            save_server(app, encryption=encryption)
            assert status(post) == "held"
            (conversation,) = attacker.conversations
            assert set(conversation.verbs) <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_the_certificate_is_checked_against_the_name_not_the_ip_address(
    app: Flask,
    post: Post,
    working_tenant: str,
    authority: trustme.CA,
    name: str,
    internet: FakeInternet,
    encryption: Encryption,
) -> None:
    implicit = encryption is Encryption.TLS
    with SmtpPeer(certificate=authority.issue_cert(name), implicit_tls=implicit, accounts={USER: PASSWORD}) as server:
        internet.ports[PUBLIC] = server.port
        save_server(app, encryption=encryption)
        assert status(post) == "sent"
        assert server.conversations[0].encrypted
    assert internet.connections == [(PUBLIC, 587)]


STRIPPED: dict[str, tuple[Script, bool]] = {
    "not offered": ({}, False),
    "refused": ({"starttls": "502 5.5.1 not here"}, True),
    "deferred": ({"starttls": "454 4.7.0 not now"}, True),
    "garbage": ({"starttls": Fault.GARBAGE}, True),
    "unencrypted": ({"tls": "220 go on in clear"}, True),
    "commands injected": ({"starttls": "220 go ahead\n250-evil.example\n250 AUTH PLAIN"}, True),
}


def test_stripped_starttls_is_an_error(
    app: Flask,
    post: Post,
    working_tenant: str,
    authority: trustme.CA,
    name: str,
    internet: FakeInternet,
    subtests: pytest.Subtests,
) -> None:
    genuine = authority.issue_cert(name)
    for how, (script, offered) in STRIPPED.items():
        certificate = genuine if offered else None
        with (
            subtests.test(how),
            SmtpPeer(script, certificate=certificate, accounts={USER: PASSWORD}) as attacker,
        ):
            internet.ports[PUBLIC] = attacker.port
            save_server(app, encryption=Encryption.STARTTLS)
            assert status(post) in {"held", "deferred"}
            (conversation,) = attacker.conversations
            assert set(conversation.verbs) <= {"EHLO", "STARTTLS", "QUIT"}


@pytest.mark.parametrize("owner", ["acme.example", None])
@pytest.mark.parametrize("mode", [AuthMode.AUTO, AuthMode.LOGIN, AuthMode.PLAIN])
def test_no_password_is_sent_unencrypted(
    app: Flask, post: Post, working_tenant: str, name: str, internet: FakeInternet, mode: AuthMode, owner: str | None
) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms="CRAM-MD5 PLAIN LOGIN") as attacker:
        internet.ports[PUBLIC] = attacker.port
        refused = save_server(app, owner, auth_mode=mode)
        assert isinstance(refused, Refusal)
        assert refused.field == "encryption"
        if owner is None:
            with app.app_context():
                tenant = tenant_service.find("acme.example")
                assert tenant is not None
                mail_server_service.remove(tenant.id)
        save_server(app, owner, auth_mode=mode, encryption=Encryption.TLS)
        with app.app_context():
            mail_server_service.share(owner is None)
            sql("UPDATE mail_servers SET encryption = 'none'")  # as saved before there was a rule
        assert status(post) == "held"
    assert "AUTH" not in commands(attacker)
    assert "MAIL" not in commands(attacker)


def test_the_operator_can_allow_it_within_a_network(
    app: Flask, post: Post, working_tenant: str, internet: FakeInternet, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_networks(app, monkeypatch, *LOCAL.trusted_networks)
    internet.names[NAME] = [["127.0.0.9"], [INTERNAL]]
    with SmtpPeer(accounts={USER: PASSWORD}) as relay:
        internet.internal_port = relay.port
        save_server(app)
        assert status(post) == "sent"
        assert relay.conversations[0].signed_in_as == USER


REPEATED = {
    "unchanged": PASSWORD,
    "upper case": PASSWORD.upper(),
    "for LOGIN": LOGIN,
    "for PLAIN": PLAIN,
    "for PLAIN, cut": PLAIN[4:-4],
}
REPLIES = {
    "greeting": "554 5.7.1 {}",
    "hello": "220 {}",
    "ehlo": "554 5.7.1 {}",
    "starttls": "554 5.7.1 {}",
    "auth": "535 5.7.8 {}",
    "auth_later": "454 4.7.0 {}",
}
STEPS = {"hello": "greeting", "auth_later": "auth"}


def test_a_password_that_a_server_repeats_is_neither_stored_nor_shown(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, authority: trustme.CA, name: str,
    internet: FakeInternet, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests,
) -> None:  # fmt: skip
    typed: dict[str, Any] = {"provider": "smtp", "host": name, "port": "587", "encryption": "starttls"}
    typed |= {"auth_mode": "auto", "username": USER, "sender_email": "pbx@acme.example"}
    typed["csrf_token"] = csrf_token(admin.get(PAGE).text)
    certificate = authority.issue_cert(name)
    for reply, words in REPLIES.items():
        shown = ""
        with (
            subtests.test(reply),
            SmtpPeer(certificate=certificate, accounts={USER: PASSWORD}) as server,
        ):
            internet.ports[PUBLIC] = server.port
            for text in REPEATED.values():
                server.script = {STEPS.get(reply, reply): words.format(text)}
                save_server(app, encryption=Encryption.STARTTLS)
                shown += str(report(post).json)
                with app.app_context():
                    sql("DELETE FROM rate_limits")  # of test emails
                tested = admin.post(f"{PAGE}/test", data=typed)
                assert tested.status_code != 429
                shown += tested.text
            assert len(server.conversations) > len(REPEATED)
            with app.app_context():
                for table in ("delivery_recipients", "deliveries", "events", "mail_servers"):
                    shown += str(sql(f"SELECT to_jsonb(each) - 'password_encrypted' FROM {table} AS each"))
            shown += admin.get(PAGE).text + admin.get(f"/tenants/{working_tenant}/deliveries").text
            for text in REPEATED.values():
                assert text.casefold() not in (shown + caplog.text).casefold()


PIECES = (PASSWORD[:6], LOGIN[:8], PLAIN[8:16], PLAIN[-12:-4].casefold())


ECHOES = ("550 5.1.1 <{}@nowhere.example>: no such user", "451 4.3.0 {} again", "554 {}")


def test_text_that_a_tenant_has_a_server_repeat_does_not_reveal_the_password(
    app: Flask,
    post: Post,
    working_tenant: str,
    authority: trustme.CA,
    name: str,
    internet: FakeInternet,
    subtests: pytest.Subtests,
) -> None:
    with SmtpPeer(certificate=authority.issue_cert(name), accounts={USER: PASSWORD}) as server:
        internet.ports[PUBLIC] = server.port
        for stage, reply, guess in product(("mail", "rcpt", "dot"), ECHOES, (*PIECES, "any-other-word")):
            with subtests.test(stage, reply=reply, guess=guess):
                server.script = {stage: reply.format(guess)}
                save_server(app, encryption=Encryption.STARTTLS)
                said = report(post).json["deliveries"][0]["recipients"][0]["text"]
                assert guess in said, "a right guess has to look like a wrong one"


def test_a_mechanism_named_like_the_password_is_masked(
    app: Flask, post: Post, working_tenant: str, authority: trustme.CA, name: str, internet: FakeInternet
) -> None:
    certificate = authority.issue_cert(name)
    with SmtpPeer(certificate=certificate, accounts={USER: PASSWORD}, mechanisms=f"X-OTHER {PASSWORD}") as server:
        internet.ports[PUBLIC] = server.port
        save_server(app, encryption=Encryption.STARTTLS)
        answer = str(post().json)
    assert "X-OTHER" in answer
    assert PASSWORD.casefold() not in answer.casefold()


THIEF = {"host": "mail.thief.example"}, {"port": "465"}, {"encryption": "tls"}, {"username": "thief"}


@pytest.mark.parametrize("change", THIEF, ids=lambda change: next(iter(change)))
def test_an_administrator_cannot_have_the_saved_password_sent_to_another_server(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    authority: trustme.CA,
    name: str,
    internet: FakeInternet,
    change: dict[str, str],
) -> None:
    internet.names["mail.thief.example"] = [["9.9.9.10"]]
    own = authority.issue_cert(name), authority.issue_cert("mail.thief.example")
    with (
        SmtpPeer(certificate=own[0], accounts={USER: PASSWORD}) as server,
        SmtpPeer(certificate=own[1], accounts={USER: PASSWORD}, mechanisms="PLAIN LOGIN") as thief,
    ):
        internet.ports = {PUBLIC: server.port, "9.9.9.10": thief.port}
        save_server(app, encryption=Encryption.STARTTLS)
        typed: dict[str, Any] = {
            "provider": "smtp",
            "host": name,
            "port": "587",
            "encryption": "starttls",
            "auth_mode": "auto",
        }
        typed |= {"auth_mode": "auto", "username": USER, "password": "", "sender_email": "pbx@acme.example", **change}
        for action in (f"{PAGE}/test", PAGE):
            answer = submit(admin, PAGE, action, **typed)
            assert answer.status_code == 422
            assert "Enter the password again" in answer.get_data(as_text=True)
        assert not internet.connections
        assert status(post) == "sent"  # through the server that was saved
        assert not thief.conversations
        assert server.conversations[0].signed_in_as == USER
