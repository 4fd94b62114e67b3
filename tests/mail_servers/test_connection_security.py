"""TLS and signing in on a connection to a mail server: what is believed, and what is never given away."""

import time
from pathlib import Path

import pytest
import trustme

from portal.mail_servers.connection import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.outcome import Kind, Outcome, Pause, Stage
from tests.mail_servers.one_mail import (
    ANN,
    PASSWORD,
    SHORT,
    USER,
    pipelining,
    send,
    settings,
    signing_in,
)
from tests.smtp_peer import Act, Move, Script, SmtpPeer

__all__ = ["pipelining"]


# TLS


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_a_trusted_certificate_and_the_right_name(
    encryption: Encryption, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    implicit = encryption is Encryption.TLS
    with SmtpPeer(certificate=certificate, implicit_tls=implicit, accounts={USER: PASSWORD}) as peer:
        result = send(signing_in(peer, encryption=encryption), ca_file=ca_file)
    assert result.outcomes[ANN].kind is Kind.SENT
    (conversation,) = peer.conversations
    assert conversation.secure
    assert conversation.signed_in_as == USER
    before = [] if implicit else ["EHLO", "STARTTLS"]
    assert conversation.verbs == [*before, "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_a_certificate_that_nobody_vouches_for(encryption: Encryption, certificate: trustme.LeafCert) -> None:
    with SmtpPeer(certificate=certificate, implicit_tls=encryption is Encryption.TLS) as peer:
        result = send(signing_in(peer, encryption=encryption))
    outcome = result.outcomes[ANN]
    assert (outcome.kind, outcome.stage) == (Kind.SETTINGS, Stage.TLS)
    assert "certificate is not accepted" in outcome.text
    assert not set(peer.conversations[0].verbs) & {"AUTH", "MAIL"}


def test_a_certificate_for_another_name(authority: trustme.CA, ca_file: Path) -> None:
    with SmtpPeer(certificate=authority.issue_cert("mail.other.example")) as peer:
        outcome = send(settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file).outcomes[ANN]
    assert (outcome.kind, outcome.stage) == (Kind.SETTINGS, Stage.TLS)
    assert outcome.text == "The certificate is not accepted: it is not valid for this server address."


def test_starttls_not_offered_is_never_given_up_on() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        outcome = send(signing_in(peer, encryption=Encryption.STARTTLS)).outcomes[ANN]
    assert outcome == Outcome(Kind.SETTINGS, Stage.TLS, None, None, "The mail server does not offer STARTTLS.")
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


def test_what_is_said_in_clear_after_starttls_is_not_believed(certificate: trustme.LeafCert, ca_file: Path) -> None:
    injected = "220 go ahead\n250-evil.example\n250 AUTH PLAIN"
    with SmtpPeer({"starttls": injected}, certificate=certificate, accounts={USER: PASSWORD}) as peer:
        outcome = send(signing_in(peer, encryption=Encryption.STARTTLS), ca_file=ca_file).outcomes[ANN]
    assert (outcome.kind, outcome.stage) == (Kind.SETTINGS, Stage.TLS)
    assert peer.conversations[0].verbs == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"starttls": "454 4.7.0 not now"}, Kind.TEMPORARY),
        ({"starttls": "502 5.5.1 not here"}, Kind.SETTINGS),
        ({"starttls": Act.SILENCE}, Kind.TEMPORARY),
        ({"starttls": Act.GARBAGE}, Kind.TEMPORARY),
        ({"tls": Act.SILENCE}, Kind.TEMPORARY),
        ({"tls": Act.DROP}, Kind.TEMPORARY),
        ({"tls": Act.RESET}, Kind.TEMPORARY),
        ({"tls": Act.GARBAGE}, Kind.SETTINGS),
    ],
)
def test_faults_while_encryption_is_agreed_on(
    script: Script, kind: Kind, certificate: trustme.LeafCert, ca_file: Path
) -> None:
    began = time.monotonic()
    with SmtpPeer(script, certificate=certificate) as peer:
        outcome = send(settings(peer, encryption=Encryption.STARTTLS), ca_file=ca_file).outcomes[ANN]
    assert (outcome.stage, outcome.kind) == (Stage.TLS, kind)
    assert time.monotonic() - began < SHORT.total


def test_tls_at_once_on_a_port_that_speaks_in_clear() -> None:
    with SmtpPeer() as peer:
        outcome = send(settings(peer, encryption=Encryption.TLS)).outcomes[ANN]
    assert outcome.stage is Stage.TLS


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
def test_one_attempt_with_the_right_mechanism(offered: str, mode: AuthMode, used: str, right: bool) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}, mechanisms=offered) as peer:
        result = send(signing_in(peer, mode, password=PASSWORD if right else "wrong"))
    attempts = [command for command in peer.conversations[0].commands if command.startswith("AUTH")]
    assert [attempt.split(" ")[1] for attempt in attempts] == [used]
    outcome = result.outcomes[ANN]
    if right:
        assert (outcome.kind, peer.conversations[0].signed_in_as) == (Kind.SENT, USER)
    else:
        assert (outcome.kind, outcome.stage, outcome.code) == (Kind.SETTINGS, Stage.AUTH, 535)
        assert result.pause is Pause.UNTIL_SAVED


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
        result = send(signing_in(peer, mode))
    assert result.outcomes[ANN] == Outcome(Kind.SETTINGS, Stage.AUTH, None, None, text)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


@pytest.mark.parametrize(("username", "password"), [(None, PASSWORD), (USER, None)])
def test_nothing_to_sign_in_with(username: str | None, password: str | None) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        outcome = send(signing_in(peer, username=username, password=password)).outcomes[ANN]
    assert (outcome.kind, outcome.stage, outcome.code) == (Kind.SETTINGS, Stage.AUTH, None)


@pytest.mark.parametrize(
    ("move", "kind", "pause"),
    [
        ("454 4.7.0 not now", Kind.TEMPORARY, Pause.BRIEF),
        ("421 4.7.0 too many", Kind.TEMPORARY, Pause.BRIEF),
        ("530 5.7.0 no", Kind.SETTINGS, Pause.UNTIL_SAVED),
        ("534 5.7.9 no", Kind.SETTINGS, Pause.UNTIL_SAVED),
        ("535 5.7.8 no", Kind.SETTINGS, Pause.UNTIL_SAVED),
        ("538 5.7.11 no", Kind.SETTINGS, Pause.UNTIL_SAVED),
        (["334 ", "334 ", "334 "], Kind.TEMPORARY, Pause.BRIEF),
        (Act.SILENCE, Kind.TEMPORARY, Pause.BRIEF),
        (Act.DROP, Kind.TEMPORARY, Pause.BRIEF),
        (Act.GARBAGE, Kind.TEMPORARY, Pause.BRIEF),
    ],
)
def test_what_a_reply_to_auth_means(move: Move | list[Move], kind: Kind, pause: Pause) -> None:
    with SmtpPeer({"auth": move}, accounts={USER: PASSWORD}) as peer:
        result = send(signing_in(peer))
    assert (result.outcomes[ANN].stage, result.outcomes[ANN].kind, result.pause) == (Stage.AUTH, kind, pause)


def test_credentials_that_the_server_says_back_are_not_passed_on() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        send(signing_in(peer))
        sent = peer.conversations[0].commands[1].split(" ")[2]
        peer.script = {"auth": f"500 5.5.1 AUTH PLAIN {sent} or {sent[:12].upper()} or {PASSWORD} is wrong"}
        text = send(signing_in(peer)).outcomes[ANN].text
    assert text == "AUTH PLAIN […] or […] or […] is wrong"


def test_a_password_is_in_no_repr() -> None:
    assert "geheim" not in repr(SmtpSettings("h", 25, Encryption.NONE, AuthMode.PLAIN, "u", "geheim"))
