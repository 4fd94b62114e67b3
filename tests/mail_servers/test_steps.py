"""The steps of a test e-mail: what each shows of the conversation, and what it keeps to itself."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import testing
from portal.mail_servers.composing import Sender
from portal.mail_servers.connection import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.steps import State, Step
from tests.internet import PUBLIC, Internet, allow, internet, strict
from tests.pages import HTMX, csrf_token
from tests.smtp_peer import LOCAL, Act, Script, SmtpPeer, refusing_port

__all__ = ["internet", "strict"]

FROM, TO = Sender("pbx@acme.example", "Acme"), ["a@acme.example", "b@acme.example"]
USER, PASSWORD = "mailer@acme.example", "Geheim-Straße-9"


def settings(port: int, **changes: object) -> SmtpSettings:
    plain = SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, reach=LOCAL)
    return replace(plain, **changes)  # type: ignore[arg-type]


def tried(settings: SmtpSettings, host: str = "mail.acme.example") -> list[testing.Result]:
    return list(testing.send_test(settings, FROM, TO, host))


def states(steps: tuple[Step, ...]) -> str:
    """Return the states by their first letters."""
    return "".join(each.state[0] for each in steps)


def named(steps: tuple[Step, ...], label: str) -> Step:
    return next(each for each in steps if each.label == label)


@pytest.fixture
def trusted(app: Flask, monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> Iterator[None]:
    """The portal with an authority that it trusts."""
    allow(app, monkeypatch, *LOCAL.networks, mail_ca_file=ca_file)
    with app.app_context():
        yield


@pytest.mark.usefixtures("context")
def test_they_stand_there_from_the_start_and_end_one_after_the_other() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        *under_way, last = tried(settings(peer.port, auth_mode=AuthMode.AUTO, username=USER, password=PASSWORD))
    labels = ["Find the server", "Connect", "Greeting", "Sign in", "Sender", "Recipient", "Recipient", "Mail"]
    assert all([each.label for each in result.steps] == labels for result in (*under_way, last))
    assert [each.subject for each in last.steps][:2] == ["mail.acme.example", f"127.0.0.1, port {peer.port}"]
    assert named(last.steps, "Greeting").reply == "220 peer.test ESMTP"
    assert named(last.steps, "Sign in").subject == f"PLAIN as {USER}"
    assert named(last.steps, "Mail").reply == "250 2.0.0 queued as 4711"
    assert states(last.steps) == "dddddddd"
    assert all(each.seconds is not None for each in last.steps)
    assert PASSWORD not in repr((under_way, last))


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ({"greeting": "554 no"}, "ddfwwww"),
        ({"ehlo": "502 no"}, "ddfwwww"),
        ({"mail": "553 5.1.8 no"}, "dddfwww"),
        ({"rcpt": ["250 ok", "550 5.1.1 no"]}, "dddddfd"),
        ({"rcpt": "550 5.1.1 no"}, "ddddffw"),
        ({"rcpt": ["250 ok", "421 4.3.2 closing"]}, "dddddfw"),
        ({"dot": "554 5.7.1 no"}, "ddddddf"),
        ({"dot": Act.DROP}, "ddddddf"),
    ],
)
@pytest.mark.parametrize("pipelining", [False, True])
def test_the_one_that_failed_says_why_and_what_to_do(script: Script, ended: str, pipelining: bool) -> None:
    extensions = ["ENHANCEDSTATUSCODES", *(["PIPELINING"] if pipelining else [])]
    with SmtpPeer(script, extensions=extensions) as peer:
        steps = tried(settings(peer.port))[-1].steps
    assert states(steps) == ended
    failed = [each for each in steps if each.state is State.FAILED]
    assert all(each.advice and (each.reply or each.facts) for each in failed)
    assert not any(each.reply.startswith("The ") for each in failed)  # only the mail server's words are quoted
    assert not any(each.advice for each in steps if each not in failed)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
@pytest.mark.parametrize(("days", "warning"), [(9.5, "The certificate ends in 9 days"), (60, "")])
def test_the_certificate_is_shown_and_its_end_is_warned_about(
    authority: trustme.CA, encryption: Encryption, days: float, warning: str
) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    issued = authority.issue_cert("127.0.0.1", "a.example", "b.example", "c.example", not_after=end)
    with SmtpPeer(certificate=issued, implicit_tls=encryption is Encryption.TLS) as peer:
        steps = tried(settings(peer.port, encryption=encryption))[-1].steps
    step = named(steps, "Encryption")
    names, issuer = step.facts
    assert re.fullmatch(r"TLS 1\.[23]", step.subject)
    assert re.fullmatch(r"Certificate for .*\.example.* and 1 more, verified for 127\.0\.0\.1", names)
    assert f"ends on {end:%-d %B %Y}" in issuer
    assert step.warning.startswith(warning)
    assert bool(step.warning) is bool(warning)
    assert states(steps) == "dddddddd"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(("script", "ended"), [({}, "dddfwwwww"), ({"starttls": "454 4.7.0 no"}, "dddfwwwww")])
def test_encryption_that_fails_comes_behind_the_greeting(
    certificate: trustme.LeafCert, script: Script, ended: str
) -> None:
    other = trustme.CA().issue_cert("127.0.0.1")
    with SmtpPeer(script, certificate=other) as peer:
        signs_in = {"auth_mode": AuthMode.AUTO, "username": USER, "password": PASSWORD}
        steps = tried(settings(peer.port, encryption=Encryption.STARTTLS, **signs_in))[-1].steps
    assert states(steps) == ended


@pytest.mark.usefixtures("context")
def test_a_port_where_nothing_listens() -> None:
    with refusing_port() as port:
        steps = tried(settings(port))[-1].steps
    assert states(steps) == "dfwwwww"
    assert "no mail server listens" in steps[1].advice


def test_a_server_that_is_somebody_elses_shows_neither_where_it_is_nor_who_signs_in(
    context: Flask,
) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        signs_in = settings(peer.port, auth_mode=AuthMode.AUTO, username=USER, password=PASSWORD)
        told = repr(tried(signs_in, host=""))
    for secret in ("127.0.0.1", str(peer.port), "peer.test", USER):
        assert secret not in told
    assert "250 2.0.0 queued as 4711" in told


def test_what_is_inside_is_not_told_by_any_step(context: Flask, internet: Internet, strict: None) -> None:
    """A name that leads inside and one that nobody has are the same, also in what is not told of their time."""
    inside, nobody = internet.leads_to(["10.0.0.5"]), "nobody.evil.example"
    told = [tried(SmtpSettings(each, 587, Encryption.STARTTLS, AuthMode.NONE), "x") for each in (inside, nobody)]
    first, second = ([result.steps for result in results][-1] for results in told)
    assert first == second
    assert [each.seconds for each in (*first, *second)] == [None] * 16
    assert "10.0.0.5" not in repr(told)
    assert not internet.dialled


def test_an_address_of_an_allowed_network_is_not_told_for_a_name(context: Flask, internet: Internet) -> None:
    with SmtpPeer() as peer:
        internet.ports["127.0.0.9"] = internet.ports[PUBLIC] = peer.port
        for address, subject in (("127.0.0.9", "port 587"), (PUBLIC, f"{PUBLIC}, port 587")):
            name = internet.leads_to([address])
            steps = tried(SmtpSettings(name, 587, Encryption.NONE, AuthMode.NONE, reach=LOCAL), name)[-1].steps
            assert steps[1].subject == subject


def test_htmx_is_answered_piece_by_piece_and_the_trail_tells_of_it(admin: FlaskClient, acme: str) -> None:
    page = f"/tenants/{acme}/mail-server"
    with SmtpPeer() as peer:
        values = {"provider": "smtp", "host": "127.0.0.1", "port": str(peer.port), "encryption": "none"}
        values |= {
            "auth_mode": "none",
            "sender_email": "pbx@acme.example",
            "csrf_token": csrf_token(admin.get(page).text),
        }
        answer = admin.post(f"{page}/test", data=values, headers={**HTMX, "Accept-Encoding": "gzip"})
        assert "Content-Length" not in answer.headers
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["X-Accel-Buffering"] == "no"
        pieces = [each.decode() for each in answer.response if each]  # type: ignore[union-attr]
        answer.close()
    assert len(pieces) > 1
    assert all(each.lstrip().startswith("<ol") and " id=" not in each.partition(">")[0] for each in pieces[:-1])
    assert pieces[-1].lstrip().startswith("<section")
    assert "took the test e-mail for admin@acme.example" in pieces[-1]
    trail = admin.get(f"/tenants/{acme}/audit").text
    assert f"sent a test e-mail through <bdi>127.0.0.1:{peer.port}</bdi>" in trail
