"""The progress of a test email: what each step shows, and what it must not reveal."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.mime import Sender
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpReply, Stage
from portal.mail_servers.smtp.progress import Progress, ProgressStep, StepState, plan_steps
from tests.fake_network import PUBLIC, FakeInternet, internet, internet_only
from tests.mail_servers.smtp.test_token_sign_in import Tokens
from tests.pages import HTMX, csrf_token
from tests.smtp_peer import LOCAL, Fault, Script, SmtpPeer, closed_port, silent_port

__all__ = ["internet", "internet_only"]

SENDER, TO = Sender("pbx@acme.example", "Acme"), ["a@acme.example", "b@acme.example"]
USER, PASSWORD = "mailer@acme.example", "Geheim-Straße-9"


def settings(port: int, **changes: object) -> SmtpSettings:
    plain = SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL)
    return replace(plain, **changes)  # type: ignore[arg-type]


def run_test(settings: SmtpSettings, server_name: str = "mail.acme.example") -> list[test_email.SendTestResult]:
    return list(test_email.send_test(settings, SENDER, TO, server_name))


def states(steps: tuple[ProgressStep, ...]) -> str:
    """Return the first letters of the states."""
    return "".join(each.state[0] for each in steps)


def step_named(steps: tuple[ProgressStep, ...], label: str) -> ProgressStep:
    return next(each for each in steps if each.label == label)


@pytest.mark.usefixtures("context")
def test_all_steps_are_listed_from_the_start_and_finish_in_order() -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        *progress, last = run_test(settings(peer.port, auth_mode=AuthMode.AUTO, username=USER, password=PASSWORD))
    labels = ["Find the server", "Connect", "Greeting", "Sign in", "Sender", "Recipient", "Recipient", "Message"]
    assert all([each.label for each in result.steps] == labels for result in (*progress, last))
    assert [each.detail for each in last.steps][:2] == ["mail.acme.example", f"127.0.0.1, port {peer.port}"]
    assert step_named(last.steps, "Greeting").reply == "220 peer.test ESMTP"
    assert step_named(last.steps, "Sign in").detail == f"PLAIN as {USER}"
    assert step_named(last.steps, "Message").reply == "250 2.0.0 queued as 4711"
    assert states(last.steps) == "dddddddd"
    assert all(each.seconds is not None for each in last.steps)
    assert PASSWORD not in repr((progress, last))


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"greeting": "554 no"}, "ddfwwww"),
        ({"ehlo": "550 no"}, "ddfwwww"),
        ({"mail": "553 5.1.8 no"}, "dddfwww"),
        ({"rcpt": ["250 ok", "550 5.1.1 no"]}, "dddddfd"),
        ({"rcpt": "550 5.1.1 no"}, "ddddffw"),
        ({"rcpt": ["250 ok", "421 4.3.2 closing"]}, "dddddfw"),
        ({"dot": "554 5.7.1 no"}, "ddddddf"),
        ({"dot": Fault.DROP}, "ddddddf"),
    ],
)
@pytest.mark.parametrize("pipelining", [False, True])
def test_a_failed_step_has_the_reply_and_advice(script: Script, expected: str, pipelining: bool) -> None:
    extensions = ["ENHANCEDSTATUSCODES", *(["PIPELINING"] if pipelining else [])]
    with SmtpPeer(script, extensions=extensions) as peer:
        steps = run_test(settings(peer.port))[-1].steps
    assert states(steps) == expected
    failed = [each for each in steps if each.state is StepState.FAILED]
    assert all(each.advice and (each.reply or each.facts) for each in failed)
    assert not any(each.reply.startswith("The ") for each in failed)  # only the mail server's text is quoted
    assert not any(each.advice for each in steps if each not in failed)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
@pytest.mark.parametrize(("days", "warning"), [(9.5, "The certificate expires in 9 days"), (60, "")])
def test_the_certificate_is_shown_with_a_warning_before_it_expires(
    authority: trustme.CA, ca_file: Path, encryption: Encryption, days: float, warning: str
) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    issued = authority.issue_cert("127.0.0.1", "a.example", "b.example", "c.example", not_after=end)
    with SmtpPeer(certificate=issued, implicit_tls=encryption is Encryption.TLS) as peer:
        steps = run_test(settings(peer.port, encryption=encryption, ca_file=ca_file))[-1].steps
    step = step_named(steps, "Encryption")
    names, issuer = step.facts
    assert re.fullmatch(r"TLS 1\.[23]", step.detail)
    assert re.fullmatch(r"Certificate for .*\.example.* and 1 more, verified for 127\.0\.0\.1", names)
    assert f"expires on {end:%-d %B %Y}" in issuer
    assert step.warning.startswith(warning)
    assert bool(step.warning) is bool(warning)
    assert states(steps) == "dddddddd"


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(("script", "expected"), [({}, "dddfwwwww"), ({"starttls": "454 4.7.0 no"}, "dddfwwwww")])
def test_failed_encryption_comes_after_the_greeting(script: Script, expected: str) -> None:
    other = trustme.CA().issue_cert("127.0.0.1")
    with SmtpPeer(script, certificate=other) as peer:
        signs_in = {"auth_mode": AuthMode.AUTO, "username": USER, "password": PASSWORD}
        steps = run_test(settings(peer.port, encryption=Encryption.STARTTLS, **signs_in))[-1].steps
    assert states(steps) == expected


@pytest.mark.usefixtures("context")
def test_an_access_token_is_the_first_step() -> None:
    signs_in = settings(587, auth_mode=AuthMode.OAUTH, username=USER)
    steps = plan_steps(signs_in, SENDER.email, TO, server_name="mail.acme.example")
    progress = Progress(signs_in, steps, lambda reply: f"advice about {reply.stage}")
    assert [step.label for step in progress.steps][:3] == ["Access token", "Find the server", "Connect"]
    assert not progress.hides_server
    assert states(progress.steps) == "rwwwwwwww"[: len(steps)]
    progress.on_stage(Stage.NAME)
    assert states(progress.steps).startswith("dr")
    rejected = SmtpReply(ReplyKind.SETTINGS, Stage.TOKEN, None, None, "The secret has expired (AADSTS7000222).")
    progress = Progress(signs_in, steps, lambda reply: f"advice about {reply.stage}")
    progress.finish(dict.fromkeys(TO, rejected))
    assert states(progress.steps).startswith("fw")
    assert progress.steps[0].facts == ("The secret has expired (AADSTS7000222).",)
    assert progress.steps[0].advice == "advice about token"


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("microsoft", [False, True])
def test_a_renewed_access_token_shows_one_session(
    certificate: trustme.LeafCert, ca_file: Path, microsoft: bool
) -> None:
    source = Tokens(["stale", "valid"], "microsoft" if microsoft else "google")
    with SmtpPeer(certificate=certificate, accounts={USER: "valid"}, mechanisms="XOAUTH2") as peer:
        signs_in = {"auth_mode": AuthMode.OAUTH, "username": USER, "token_source": source, "ca_file": ca_file}
        last = run_test(settings(peer.port, encryption=Encryption.STARTTLS, **signs_in))[-1]
    assert (last.state, states(last.steps), len(peer.conversations)) == ("sent", "d" * 10, 2)
    token, _, connect, greeting, tls, sign_in, *_ = last.steps
    assert (token.detail, token.reply) == ("Microsoft" if microsoft else "Google", "")
    assert connect.detail == f"127.0.0.1, port {peer.port}"
    assert greeting.reply == "220 peer.test ESMTP"
    assert tls.detail.startswith("TLS 1.")
    assert (sign_in.detail, sign_in.reply) == (f"XOAUTH2 as {USER}", "235 2.7.0 welcome")


@pytest.mark.usefixtures("context")
def test_a_rejected_access_token_has_the_reply_and_advice() -> None:
    with SmtpPeer(accounts={USER: "valid"}, mechanisms="XOAUTH2") as peer:
        source = Tokens(["stale", "another"])
        last = run_test(settings(peer.port, auth_mode=AuthMode.OAUTH, username=USER, token_source=source))[-1]
    assert (last.state, states(last.steps)) == ("failed", "ddddfwwww")
    sign_in = step_named(last.steps, "Sign in")
    assert sign_in.reply == "535 5.7.8 wrong username or password (XOAUTH2: status 401, schemes bearer, scope mail)"
    assert sign_in.advice.startswith("The mail server rejected the access token")


@pytest.mark.usefixtures("context")
def test_a_port_where_nothing_listens() -> None:
    with closed_port() as port:
        steps = run_test(settings(port))[-1].steps
    assert states(steps) == "dfwwwww"
    assert "no mail server listens" in steps[1].advice


def test_the_shared_server_reveals_neither_its_host_nor_its_account(
    context: Flask,
) -> None:
    with SmtpPeer(accounts={USER: PASSWORD}) as peer:
        signs_in = settings(peer.port, auth_mode=AuthMode.AUTO, username=USER, password=PASSWORD)
        shown = repr(run_test(signs_in, server_name=""))
    for secret in ("127.0.0.1", str(peer.port), "peer.test", USER):
        assert secret not in shown
    assert "250 2.0.0 queued as 4711" in shown


@pytest.fixture
def silent() -> Iterator[int]:
    with silent_port() as port:
        yield port


def test_advice_does_not_reveal_the_port_of_the_shared_server(
    context: Flask, silent: int, internet: FakeInternet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_email, "TIMEOUTS", Timeouts(connect=0.2, command=60, total=60, reply=60))
    internet.internal_port = silent
    shared = settings(25, host=PUBLIC), settings(587, host=PUBLIC)
    first, second = (run_test(server, server_name="")[-1] for server in shared)
    assert (first.advice, first.steps[1].advice) == (second.advice, second.steps[1].advice)
    assert "Nothing responds" in first.advice


def test_no_step_reveals_the_internal_network(context: Flask, internet: FakeInternet, internet_only: None) -> None:
    """A name of an internal host and an unknown name look the same, also in the times."""
    internal, unknown = internet.add_name(["10.0.0.5"]), "nobody.evil.example"
    shown = [run_test(SmtpSettings(each, 587, Encryption.STARTTLS, AuthMode.NONE), "x") for each in (internal, unknown)]
    first, second = ([result.steps for result in results][-1] for results in shown)
    assert first == second
    assert [each.seconds for each in (*first, *second)] == [None] * 16
    assert "10.0.0.5" not in repr(shown)
    assert not internet.connections


def test_an_internal_ip_address_is_not_revealed_for_a_name(context: Flask, internet: FakeInternet) -> None:
    with SmtpPeer() as peer:
        internet.ports["127.0.0.9"] = internet.ports[PUBLIC] = peer.port
        for ip_address, detail in (("127.0.0.9", "port 587"), (PUBLIC, f"{PUBLIC}, port 587")):
            name = internet.add_name([ip_address])
            results = run_test(SmtpSettings(name, 587, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL), name)
            assert results[-1].steps[1].detail == detail


def test_progress_is_streamed_to_htmx_and_the_test_is_audited(admin: FlaskClient, acme: str) -> None:
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
        fragments = [each.decode() for each in answer.response if each]  # type: ignore[union-attr]
        answer.close()
    assert len(fragments) > 1
    assert all(each.lstrip().startswith("<ol") and " id=" not in each.partition(">")[0] for each in fragments[:-1])
    assert fragments[-1].lstrip().startswith('<div class="test-result"')
    assert "accepted the test email for admin@acme.example" in fragments[-1]
    trail = admin.get(f"/tenants/{acme}/audit").text
    assert f"requested a test email through <bdi>127.0.0.1:{peer.port}</bdi>" in trail
