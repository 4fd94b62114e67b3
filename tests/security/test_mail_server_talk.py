"""Who stands between the portal and a mail server, or behind its name, gets no password and no mail."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.errors import Refusal
from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode, Encryption
from portal.tenants import directory
from tests.internet import INSIDE, PUBLIC, Internet, allow, internet, strict
from tests.mail_servers.conftest import authority, ca_file
from tests.pages import post as submit
from tests.ready import Post, entered, key, peer, post, ready
from tests.smtp_peer import LOCAL, Act, Script, SmtpPeer
from tests.sql import sql

__all__ = ["authority", "ca_file", "internet", "key", "peer", "post", "ready", "strict"]

NAME = "mail.acme.example"
USER, PASSWORD = "mailer@acme.example", "Geheim-Straße-9"
PAGE = "/tenants/acme.example/mail-server"
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
LOGIN = base64.b64encode(PASSWORD.encode()).decode()
Issue = Callable[[trustme.CA], trustme.LeafCert]


@pytest.fixture
def name(app: Flask, internet: Internet, monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> str:
    """The name of the mail server of Acme, whose certificate is of an authority that the operator trusts."""
    allow(app, monkeypatch, mail_ca_file=ca_file)
    internet.names[NAME] = [[PUBLIC]]
    return NAME


def use(app: Flask, owner: str | None = "acme.example", **changes: Any) -> Any:
    """Save a mail server that is signed in to, as the page does."""
    with app.app_context():
        tenant = directory.find(owner) if owner else None
        if tenant:
            enter_scope(tenant.id)
        values = {"host": NAME, "auth_mode": AuthMode.AUTO, "username": USER, "password": PASSWORD, **changes}
        return settings.save(tenant.id if tenant else None, entered(values.pop("port", 587), **values))


def status(post: Post) -> str:
    answer = post()
    assert answer.status_code == 200
    return str(answer.json["status"])


def heard(*peers: SmtpPeer) -> str:
    return " ".join(command for peer in peers for each in peer.conversations for command in each.commands)


CERTIFICATES: dict[str, Issue] = {
    "anybody's": lambda _: trustme.CA().issue_cert(NAME),
    "of another name": lambda authority: authority.issue_cert("mail.evil.example"),
    "of the number": lambda authority: authority.issue_cert(PUBLIC),
    "of a name above": lambda authority: authority.issue_cert("acme.example"),
    "expired": lambda authority: authority.issue_cert(NAME, not_after=datetime.now(UTC) - timedelta(days=1)),
}


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_man_in_the_middle_with_a_certificate_gets_nothing(
    app: Flask,
    post: Post,
    ready: str,
    authority: trustme.CA,
    name: str,
    internet: Internet,
    kind: str,
    encryption: Encryption,
) -> None:
    certificate, implicit = CERTIFICATES[kind](authority), encryption is Encryption.TLS
    with SmtpPeer(certificate=certificate, implicit_tls=implicit, accounts={USER: PASSWORD}) as man:
        internet.ports[PUBLIC] = man.port
        use(app, encryption=encryption)
        assert status(post) == "held"
        (conversation,) = man.conversations
    assert set(conversation.verbs) <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_the_name_is_what_the_certificate_has_to_have_although_a_number_is_dialled(
    app: Flask,
    post: Post,
    ready: str,
    authority: trustme.CA,
    name: str,
    internet: Internet,
    encryption: Encryption,
) -> None:
    implicit = encryption is Encryption.TLS
    with SmtpPeer(certificate=authority.issue_cert(name), implicit_tls=implicit, accounts={USER: PASSWORD}) as server:
        internet.ports[PUBLIC] = server.port
        use(app, encryption=encryption)
        assert status(post) == "sent"
        assert server.conversations[0].secure
    assert internet.dialled == [(PUBLIC, 587)]


STRIPPED: dict[str, tuple[Script, bool]] = {
    "not offered": ({}, False),
    "refused": ({"starttls": "502 5.5.1 not here"}, True),
    "put off": ({"starttls": "454 4.7.0 not now"}, True),
    "garbage": ({"starttls": Act.GARBAGE}, True),
    "spoken in clear": ({"tls": "220 go on in clear"}, True),
    "commands injected": ({"starttls": "220 go ahead\n250-evil.example\n250 AUTH PLAIN"}, True),
}


@pytest.mark.parametrize("how", STRIPPED)
def test_starttls_that_is_stripped_is_an_error(
    app: Flask, post: Post, ready: str, authority: trustme.CA, name: str, internet: Internet, how: str
) -> None:
    script, offered = STRIPPED[how]
    certificate = authority.issue_cert(name) if offered else None
    with SmtpPeer(script, certificate=certificate, accounts={USER: PASSWORD}) as man:
        internet.ports[PUBLIC] = man.port
        use(app, encryption=Encryption.STARTTLS)
        assert status(post) in {"held", "deferred"}
        (conversation,) = man.conversations
    assert set(conversation.verbs) <= {"EHLO", "STARTTLS", "QUIT"}


@pytest.mark.parametrize("owner", ["acme.example", None])
@pytest.mark.parametrize("mode", [AuthMode.AUTO, AuthMode.LOGIN, AuthMode.PLAIN])
def test_no_password_goes_out_in_clear(
    app: Flask, post: Post, ready: str, name: str, internet: Internet, mode: AuthMode, owner: str | None
) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms="CRAM-MD5 PLAIN LOGIN") as man:
        internet.ports[PUBLIC] = man.port
        refused = use(app, owner, auth_mode=mode)
        assert isinstance(refused, Refusal)
        assert refused.field == "encryption"
        if owner is None:
            with app.app_context():
                tenant = directory.find("acme.example")
                assert tenant is not None
                settings.remove(tenant.id)
        use(app, owner, auth_mode=mode, encryption=Encryption.TLS)
        with app.app_context():
            settings.share(owner is None)
            sql("UPDATE mail_servers SET encryption = 'none'")  # saved so before there was a rule
        assert status(post) == "held"
    assert "AUTH" not in heard(man)
    assert "MAIL" not in heard(man)


def test_the_operator_may_allow_it_within_a_network(
    app: Flask, post: Post, ready: str, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(app, monkeypatch, *LOCAL.networks)
    internet.names[NAME] = [["127.0.0.9"], [INSIDE]]
    with SmtpPeer(accounts={USER: PASSWORD}) as relay:
        internet.inside = relay.port
        use(app)
        assert status(post) == "sent"
        assert relay.conversations[0].signed_in_as == USER


SAID = {
    "as it is": PASSWORD,
    "in capitals": PASSWORD.upper(),
    "for LOGIN": LOGIN,
    "for PLAIN": PLAIN,
    "for PLAIN, cut": PLAIN[4:-4],
}
REFUSALS = {
    "greeting": "554 5.7.1 {}",
    "hello": "220 {}",
    "ehlo": "554 5.7.1 {}",
    "starttls": "554 5.7.1 {}",
    "auth": "535 5.7.8 {}",
    "auth_later": "454 4.7.0 {}",
}
STEPS = {"hello": "greeting", "auth_later": "auth"}


@pytest.mark.parametrize("reply", REFUSALS)
def test_a_password_that_a_server_says_back_is_neither_stored_nor_shown(
    app: Flask, admin: FlaskClient, post: Post, ready: str, authority: trustme.CA, name: str, internet: Internet,
    caplog: pytest.LogCaptureFixture, reply: str,
) -> None:  # fmt: skip
    shown = ""
    with SmtpPeer(certificate=authority.issue_cert(name), accounts={USER: PASSWORD}) as server:
        internet.ports[PUBLIC] = server.port
        for words in SAID.values():
            server.script = {STEPS.get(reply, reply): REFUSALS[reply].format(words)}
            use(app, encryption=Encryption.STARTTLS)
            shown += str(post().json)
            typed: dict[str, Any] = {
                "provider": "smtp",
                "host": name,
                "port": "587",
                "encryption": "starttls",
                "auth_mode": "auto",
            }
            typed |= {"auth_mode": "auto", "username": USER, "sender_email": "pbx@acme.example"}
            shown += submit(admin, PAGE, f"{PAGE}/test", **typed).get_data(as_text=True)
        assert len(server.conversations) > len(SAID)
    with app.app_context():
        for table in ("delivery_recipients", "deliveries", "events", "mail_servers"):
            shown += str(sql(f"SELECT to_jsonb(each) - 'password_encrypted' FROM {table} AS each"))
    shown += admin.get(PAGE).get_data(as_text=True) + admin.get(f"/tenants/{ready}/deliveries").get_data(as_text=True)
    for words in SAID.values():
        assert words.casefold() not in (shown + caplog.text).casefold()


PIECES = (PASSWORD[:6], LOGIN[:8], PLAIN[8:16], PLAIN[-12:-4].casefold())


@pytest.mark.parametrize("reply", ["550 5.1.1 <{}@nowhere.example>: no such user", "451 4.3.0 {} again", "554 {}"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "dot"])
def test_words_that_a_tenant_has_a_server_repeat_do_not_tell_the_password(
    app: Flask, post: Post, ready: str, authority: trustme.CA, name: str, internet: Internet, stage: str, reply: str
) -> None:
    with SmtpPeer(certificate=authority.issue_cert(name), accounts={USER: PASSWORD}) as server:
        internet.ports[PUBLIC] = server.port
        for guess in (*PIECES, "any-other-word"):
            server.script = {stage: reply.format(guess)}
            use(app, encryption=Encryption.STARTTLS)
            said = post().json["deliveries"][0]["recipients"][0]["text"]
            assert guess in said, "a right guess is to look like a wrong one"


def test_a_mechanism_that_is_called_like_the_password_is_not_named(
    app: Flask, post: Post, ready: str, authority: trustme.CA, name: str, internet: Internet
) -> None:
    certificate = authority.issue_cert(name)
    with SmtpPeer(certificate=certificate, accounts={USER: PASSWORD}, mechanisms=f"X-OTHER {PASSWORD}") as server:
        internet.ports[PUBLIC] = server.port
        use(app, encryption=Encryption.STARTTLS)
        answer = str(post().json)
    assert "X-OTHER" in answer
    assert PASSWORD.casefold() not in answer.casefold()


THIEF = {"host": "mail.thief.example"}, {"port": "465"}, {"encryption": "tls"}, {"username": "thief"}


@pytest.mark.parametrize("change", THIEF, ids=lambda change: next(iter(change)))
def test_an_administrator_does_not_have_the_saved_password_sent_to_his_own_machine(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    ready: str,
    authority: trustme.CA,
    name: str,
    internet: Internet,
    change: dict[str, str],
) -> None:
    internet.names["mail.thief.example"] = [["9.9.9.10"]]
    own = authority.issue_cert(name), authority.issue_cert("mail.thief.example")
    with (
        SmtpPeer(certificate=own[0], accounts={USER: PASSWORD}) as server,
        SmtpPeer(certificate=own[1], accounts={USER: PASSWORD}, mechanisms="PLAIN LOGIN") as thief,
    ):
        internet.ports = {PUBLIC: server.port, "9.9.9.10": thief.port}
        use(app, encryption=Encryption.STARTTLS)
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
        assert not internet.dialled
        assert status(post) == "sent"  # through the server that was saved
        assert not thief.conversations
        assert server.conversations[0].signed_in_as == USER
