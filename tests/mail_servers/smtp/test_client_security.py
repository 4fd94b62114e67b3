"""TLS and sign-in on a connection to a mail server: what is trusted, and what is never revealed."""

import base64
import html
import json
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import trustme

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpReply, Stage
from tests.mail_servers.example_message import (
    ANN,
    PASSWORD,
    PATIENT,
    USER,
    pause_after,
    pipelining,
    send,
    settings,
    short_at,
    sign_in_settings,
)
from tests.smtp_peer import Action, Fault, Script, SmtpPeer

pytestmark = pytest.mark.slow

__all__ = ["pipelining"]


# TLS


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_a_trusted_certificate_for_the_right_name(
    encryption: Encryption, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    implicit = encryption is Encryption.TLS
    with SmtpPeer(certificate=certificate, implicit_tls=implicit, accounts={USER: PASSWORD}) as peer:
        result = send(sign_in_settings(peer, encryption=encryption), ca_file=ca_file)
    assert result[ANN].kind is ReplyKind.ACCEPTED
    (conversation,) = peer.conversations
    assert conversation.encrypted
    assert conversation.signed_in_as == USER
    before = [] if implicit else ["EHLO", "STARTTLS"]
    assert conversation.verbs == [*before, "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_a_certificate_of_an_unknown_authority(encryption: Encryption, certificate: trustme.LeafCert) -> None:
    with SmtpPeer(certificate=certificate, implicit_tls=encryption is Encryption.TLS) as peer:
        result = send(sign_in_settings(peer, encryption=encryption))
    reply = result[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.TLS)
    assert "certificate is not accepted" in reply.text
    assert not set(peer.conversations[0].verbs) & {"AUTH", "MAIL"}


def test_a_certificate_for_another_name(authority: trustme.CA, ca_file: Path) -> None:
    with SmtpPeer(certificate=authority.issue_cert("mail.other.example")) as peer:
        reply = send(settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file)[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.TLS)
    assert reply.text == "The certificate is not accepted: it is not valid for this server address."


def test_without_starttls_nothing_is_sent() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, encryption=Encryption.STARTTLS))[ANN]
    assert reply == SmtpReply(ReplyKind.SETTINGS, Stage.TLS, None, None, "The mail server does not offer STARTTLS.")
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


def test_unencrypted_data_after_starttls_ends_the_session(certificate: trustme.LeafCert, ca_file: Path) -> None:
    injected = "220 go ahead\n250-evil.example\n250 AUTH PLAIN"
    with SmtpPeer({"starttls": injected}, certificate=certificate, accounts={USER: PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file)[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.TLS)
    assert peer.conversations[0].verbs == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"starttls": "454 4.7.0 not now"}, ReplyKind.TEMPORARY),
        ({"starttls": "502 5.5.1 not here"}, ReplyKind.SETTINGS),
        ({"starttls": Fault.SILENCE}, ReplyKind.TEMPORARY),
        ({"starttls": Fault.GARBAGE}, ReplyKind.TEMPORARY),
        ({"tls": Fault.SILENCE}, ReplyKind.TEMPORARY),
        ({"tls": Fault.DROP}, ReplyKind.TEMPORARY),
        ({"tls": Fault.RESET}, ReplyKind.TEMPORARY),
        ({"tls": Fault.GARBAGE}, ReplyKind.SETTINGS),
    ],
)
def test_failures_of_starttls_and_tls(
    script: Script, kind: ReplyKind, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    began = time.monotonic()
    with SmtpPeer(script, certificate=certificate) as peer, short_at(Stage.TLS) as timeouts:
        starttls = settings(peer, encryption=Encryption.STARTTLS)
        enough = timeouts if Fault.SILENCE in script.values() else PATIENT
        reply = send(starttls, timeouts=enough, ca_file=ca_file)[ANN]
    assert (reply.stage, reply.kind) == (Stage.TLS, kind)
    assert time.monotonic() - began < PATIENT.command / 2


def test_implicit_tls_on_an_unencrypted_port() -> None:
    with SmtpPeer() as peer:
        reply = send(settings(peer, encryption=Encryption.TLS))[ANN]
    assert reply.stage is Stage.TLS


# AUTH


@pytest.mark.parametrize(
    ("offered", "mode", "used"),
    [
        ("PLAIN LOGIN", AuthMode.AUTO, "PLAIN"),
        ("CRAM-MD5 LOGIN", AuthMode.AUTO, "LOGIN"),
        ("XOAUTH2 CRAM-MD5", AuthMode.AUTO, "CRAM-MD5"),
        ("PLAIN LOGIN", AuthMode.LOGIN, "LOGIN"),
        ("LOGIN PLAIN", AuthMode.PLAIN, "PLAIN"),
    ],
)
@pytest.mark.parametrize("right", [True, False])
def test_one_sign_in_with_the_best_mechanism(offered: str, mode: AuthMode, used: str, right: bool) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms=offered) as peer:
        result = send(sign_in_settings(peer, mode, password=PASSWORD if right else "wrong"))
    attempts = [command for command in peer.conversations[0].commands if command.startswith("AUTH")]
    assert [attempt.split(" ")[1] for attempt in attempts] == [used]
    reply = result[ANN]
    if right:
        assert (reply.kind, peer.conversations[0].signed_in_as) == (ReplyKind.ACCEPTED, USER)
    else:
        assert (reply.kind, reply.stage, reply.code) == (ReplyKind.SETTINGS, Stage.AUTH, 535)
        assert pause_after(result) is Pause.UNTIL_SAVED


@pytest.mark.parametrize(
    ("mechanisms", "mode", "text"),
    [
        ("", AuthMode.AUTO, "The mail server offers no sign-in."),
        ("XOAUTH2 NTLM", AuthMode.AUTO, "The mail server offers only XOAUTH2, NTLM."),
        ("PLAIN", AuthMode.LOGIN, "The mail server offers only PLAIN."),
    ],
)
def test_a_mechanism_that_is_not_offered(mechanisms: str, mode: AuthMode, text: str) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms=mechanisms) as peer:
        result = send(sign_in_settings(peer, mode))
    assert result[ANN] == SmtpReply(ReplyKind.SETTINGS, Stage.AUTH, None, None, text)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


@pytest.mark.parametrize("mode", [AuthMode.AUTO, AuthMode.LOGIN])
@pytest.mark.parametrize("length", [40, 100, 1000])
def test_a_long_password_does_not_make_the_command_too_long(mode: AuthMode, length: int) -> None:
    """RFC 4954, section 4: then there is no initial response. Mail servers reject the command otherwise."""
    password = "密" * length
    with SmtpPeer(accounts={USER: password}) as peer:
        result = send(sign_in_settings(peer, mode, password=password))
    assert result[ANN].kind is ReplyKind.ACCEPTED
    assert peer.conversations[0].signed_in_as == USER


@pytest.mark.parametrize(("username", "password"), [(None, PASSWORD), (USER, None)])
def test_a_missing_username_or_password(username: str | None, password: str | None) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, username=username, password=password))[ANN]
    assert (reply.kind, reply.stage, reply.code) == (ReplyKind.SETTINGS, Stage.AUTH, None)


@pytest.mark.parametrize(
    ("action", "kind", "pause"),
    [
        ("454 4.7.0 not now", ReplyKind.TEMPORARY, Pause.BRIEF),
        ("421 4.7.0 too many", ReplyKind.TEMPORARY, Pause.BRIEF),
        ("530 5.7.0 no", ReplyKind.SETTINGS, Pause.UNTIL_SAVED),
        ("534 5.7.9 no", ReplyKind.SETTINGS, Pause.UNTIL_SAVED),
        ("535 5.7.8 no", ReplyKind.SETTINGS, Pause.UNTIL_SAVED),
        ("538 5.7.11 no", ReplyKind.SETTINGS, Pause.UNTIL_SAVED),
        (["334 ", "334 ", "334 "], ReplyKind.TEMPORARY, Pause.BRIEF),
        (Fault.SILENCE, ReplyKind.TEMPORARY, Pause.BRIEF),
        (Fault.DROP, ReplyKind.TEMPORARY, Pause.BRIEF),
        (Fault.GARBAGE, ReplyKind.TEMPORARY, Pause.BRIEF),
    ],
)
def test_replies_to_auth(action: Action | list[Action], kind: ReplyKind, pause: Pause) -> None:
    with SmtpPeer({"auth": action}, accounts={USER: PASSWORD}) as peer, short_at(Stage.AUTH) as timeouts:
        result = send(sign_in_settings(peer), timeouts=timeouts if action is Fault.SILENCE else PATIENT)
    assert (result[ANN].stage, result[ANN].kind, pause_after(result)) == (Stage.AUTH, kind, pause)


def test_credentials_that_the_server_repeats_are_masked() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        send(sign_in_settings(peer))
        sent = peer.conversations[0].commands[1].split(" ")[2]
        peer.script = {"auth": f"500 5.5.1 AUTH PLAIN {sent} or {sent[:12].upper()} or {PASSWORD} is wrong"}
        text = send(sign_in_settings(peer))[ANN].text
    assert text == "AUTH PLAIN […] or […] or […] is wrong"


ODD_PASSWORD = "Tr0ub4dor&3 ümläut/9"
REPEATED = {
    "as it is": ODD_PASSWORD.encode(),
    "Latin-1": ODD_PASSWORD.encode("latin-1"),
    "in upper case": ODD_PASSWORD.upper().encode(),
    "for HTML": html.escape(ODD_PASSWORD).encode(),
    "for HTML in ASCII": html.escape(ODD_PASSWORD).encode("ascii", "xmlcharrefreplace"),
    "for HTML in Latin-1": html.escape(ODD_PASSWORD).encode("latin-1"),
    "for a URL": quote(ODD_PASSWORD).encode(),
    "for a part of a URL": quote(ODD_PASSWORD, safe="").encode(),
    "for a query": quote_plus(ODD_PASSWORD).encode(),
    "for a URL in Latin-1": quote(ODD_PASSWORD, encoding="latin-1").encode(),
    "for JSON": json.dumps(ODD_PASSWORD).encode(),
    "in Base64": base64.b64encode(ODD_PASSWORD.encode()),
    "in Base64 without its end": base64.b64encode(ODD_PASSWORD.encode()).rstrip(b"="),
    "in Base64 of Latin-1": base64.b64encode(ODD_PASSWORD.encode("latin-1")),
    "for PLAIN": base64.b64encode(f"\0{USER}\0{ODD_PASSWORD}".encode()),
}


@pytest.mark.parametrize("step", ["greeting", "ehlo", "auth", "mail", "rcpt", "dot"])
@pytest.mark.parametrize("form", REPEATED)
def test_a_password_that_the_server_repeats_is_masked_whole(form: str, step: str) -> None:
    """Also in a reply after sign-in, when parts of it are not masked any more."""
    repeated = REPEATED[form].decode("utf-8", "surrogateescape")
    with SmtpPeer({step: f"554 5.7.1 (session of {repeated})"}, accounts={USER: ODD_PASSWORD}) as peer:
        reply = send(sign_in_settings(peer, password=ODD_PASSWORD))[ANN]
    assert reply.stage is (Stage.DATA if step == "dot" else Stage(step))
    masked = 'session of "[…]"' if form == "for JSON" else "session of […]"
    assert reply.text == ("The mail server rejected the connection." if step == "greeting" else f"({masked})")


def test_words_that_only_contain_the_password_stay_after_sign_in() -> None:
    with SmtpPeer({"rcpt": "550 5.1.1 gehe geheim, ungeheimt"}, accounts={USER: "geheim"}) as peer:
        assert send(sign_in_settings(peer, password="geheim"))[ANN].text == "gehe […], ungeheimt"


def test_the_password_is_not_in_the_repr() -> None:
    assert "geheim" not in repr(SmtpSettings("h", 25, Encryption.NONE, AuthMode.PLAIN, "u", "geheim"))
