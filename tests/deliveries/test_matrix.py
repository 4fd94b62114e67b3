"""The table "What a mail server's reply means" of docs/reference/delivery.md, row by row.

Each row is spoken by a real mail server; then the PBX's answer, the delivery log and the status of the mail server are
read.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.mail_servers.smtp.outcome import Stage
from portal.tenants import service as tenant_service
from tests.mail_servers.example_message import PATIENT, SHORT, short_at
from tests.smtp_peer import EXTENSIONS, Action, Fault, SmtpPeer, closed_port, silent_port
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, entered

pytestmark = pytest.mark.slow

USER = {"extension_number": "1001", "extension_password": "s3cr3t"}
SIGNS_IN = {"auth_mode": AuthMode.PLAIN, "username": "u", "password": "p"}
STARTTLS = {"encryption": Encryption.STARTTLS}

REASONS = {"mail_server_rejected": "rejects its settings", "may_have_been_sent": "may have been sent"}


@dataclass(frozen=True)
class Row:
    """A row of the table: what the mail server does at a step, and what everybody is told."""

    step: str
    does: Action | list[Action]
    stage: str
    code: int | None
    status: str
    shown: str  # in the log
    strip: str = ""  # what the status of the mail server says
    reason: str | None = None
    each: tuple[str, str] | None = None  # the recipients' own, where they differ
    server: dict[str, Any] | None = None
    kind: str = "queue.call_lost"

    @property
    def outcomes(self) -> tuple[str, str]:
        return self.each or (self.status, self.status)

    def __str__(self) -> str:
        return f"{self.step}-{self.does}"


def deferred(step: str, does: Action, stage: str, code: int | None = None, strip: str = "Paused", **more: Any) -> Row:
    return Row(step, does, stage, code, "deferred", "Will try again", strip, **more)


def held(step: str, does: Action, stage: str, code: int | None = None, strip: str = "", **more: Any) -> Row:
    return Row(step, does, stage, code, "held", "Held", strip, **{"reason": "mail_server_rejected", **more})


def failed(step: str, does: Action, stage: str, code: int) -> Row:
    return Row(step, does, stage, code, "failed", "Failed")


def partial(does: str, outcome: str) -> Row:
    return Row("rcpt", ["250 ok", does], "rcpt", int(does[:3]), "partial", "Partly sent", each=("sent", outcome))


BEFORE_MAIL = [
    deferred("greeting", "451 4.3.0 later", "greeting", 451),
    deferred("greeting", "421 4.3.2 closing", "greeting", 421),
    deferred("greeting", Fault.DROP, "greeting"),
    held("greeting", "554 5.7.1 no", "greeting", 554),
    deferred("ehlo", "451 4.3.0 later", "ehlo", 451),
    deferred("ehlo", Fault.SILENCE, "ehlo"),
    held("ehlo", "550 5.7.1 no", "ehlo", 550),
    deferred("starttls", "454 4.7.0 not now", "tls", 454, server=STARTTLS),
    deferred("tls", Fault.DROP, "tls", server=STARTTLS),
    deferred("tls", Fault.SILENCE, "tls", server=STARTTLS),
    held("tls", Fault.GARBAGE, "tls", server=STARTTLS),
    held("starttls", "220 go ahead", "tls", server=STARTTLS),  # then it shows a certificate that nobody vouches for
    deferred("auth", "454 4.7.0 not now", "auth", 454, server=SIGNS_IN),
    deferred("auth", "432 4.7.12 change it", "auth", 432, server=SIGNS_IN),
    *(held("auth", f"{code} 5.7.8 no", "auth", code, "Rejected", server=SIGNS_IN) for code in (530, 534, 535, 538)),
]
OF_A_MAIL = [
    deferred("mail", "451 4.3.0 later", "mail", 451, ""),
    deferred("mail", "421 4.3.2 closing", "mail", 421),
    held("mail", "550 5.7.1 not you", "mail", 550),
    partial("451 4.7.1 greylisted", "deferred"),
    partial("552 5.5.3 too many", "deferred"),
    partial("550 5.1.1 no such user", "failed"),
    deferred("rcpt", "451 4.7.1 greylisted", "rcpt", 451, ""),
    deferred("rcpt", "421 4.3.2 closing", "rcpt", 421),
    failed("rcpt", "550 5.1.1 no such user", "rcpt", 550),
    deferred("data", "451 4.3.0 later", "data", 451, ""),
    failed("data", "554 5.5.1 no", "data", 554),
    deferred("dot", "451 4.3.0 later", "data", 451, ""),
    failed("dot", "554 5.7.1 spam", "data", 554),
    # about the account or the mail server, and so not the fault of the message or of the recipient
    held("rcpt", "504 5.5.2 <127.0.0.1>: Helo command rejected: need fully-qualified hostname", "rcpt", 504),
    held("rcpt", "554 5.7.1 <ops@acme.example>: Relay access denied", "rcpt", 554),
    held("rcpt", "530 5.7.0 Must issue a STARTTLS command first", "rcpt", 530),
    held("dot", "553 5.7.1 Sender address rejected: not owned by user", "data", 553),
    deferred("dot", "550 5.2.2 Mailbox quota exceeded", "data", 550, ""),
    deferred("dot", "554 5.7.0 The limit on the number of outgoing messages was exceeded", "data", 554, ""),
    deferred("dot", Fault.DROP, "data"),
    deferred("dot", Fault.SILENCE, "data"),
    held("dot", Fault.DROP, "data", strip="Paused", reason="may_have_been_sent", kind="user.created"),
    Row("quit", Fault.DROP, "data", 250, "sent", "Sent"),
]


@pytest.fixture(scope="module")
def certificate() -> trustme.LeafCert:
    """A certificate that the portal does not trust."""
    return trustme.CA().issue_cert("127.0.0.1")


@contextmanager
def little_time(row: Row) -> Iterator[None]:
    """Give the mail server little time where it does not reply, and as much as it needs for everything else."""
    with short_at(Stage(row.stage)) as timeouts, pytest.MonkeyPatch.context() as patch:
        if row.stage == "connect":
            timeouts = replace(PATIENT, connect=SHORT)
        elif row.step == "dot":
            timeouts = replace(PATIENT, reply=SHORT)
        is_silent = row.stage == "connect" or row.does is Fault.SILENCE
        patch.setattr("portal.deliveries.attempt.DEFAULT_TIMEOUTS", timeouts if is_silent else PATIENT)
        yield


def use(app: Flask, domain: str, port: int, **changes: Any) -> None:
    """Save a mail server of the tenant."""
    with app.app_context():
        tenant = tenant_service.find(domain)
        assert tenant
        enter_scope(tenant.id)
        mail_server_settings.save(tenant.id, entered(port, **changes))


@contextmanager
def peer_for(
    app: Flask, domain: str, certificate: trustme.LeafCert, *, ahead: bool = True, **changes: Any
) -> Iterator[SmtpPeer]:
    """A mail server of the tenant, which has no events yet. It takes commands ahead where a test says nothing else."""
    with app.app_context():
        sql("DELETE FROM events")
        sql("DELETE FROM storms")
    extensions = (*EXTENSIONS, "PIPELINING") if ahead else EXTENSIONS
    with SmtpPeer(certificate=certificate, accounts={"u": "p"}, extensions=extensions) as peer:
        use(app, domain, peer.port, **changes)
        yield peer


def check_answer(row: Row, post: Post) -> list[Any]:
    """Assert that the PBX is told what the row says, and return the mail server's reply."""
    with little_time(row):
        answer = post(row.kind, CALL_LOST if row.kind == "queue.call_lost" else USER)
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, row.status, row.reason)
    mail = answer.json["deliveries"][0]
    first, last = mail["recipients"]
    assert (first["status"], last["status"], last["stage"], last["code"]) == (*row.outcomes, row.stage, row.code)
    assert (mail["next_attempt_at"] is not None) is ("deferred" in row.outcomes)
    return [last["code"], last["enhanced_code"], last["text"]]


def check(row: Row, post: Post, admin: FlaskClient, domain: str) -> None:
    """Assert that the PBX and the tenant's administrator are told what the row says."""
    reply = check_answer(row, post)
    page = admin.get(f"/tenants/{domain}/deliveries").get_data(as_text=True)
    strip = re.search(r'<aside class="server-status".*?</aside>', page, re.DOTALL)
    assert strip
    assert re.findall(r"\b(?:Paused|Rejected)\b", strip[0]) == [row.strip] * bool(row.strip)
    shown = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.replace(strip[0], ""))))
    if set(row.outcomes) != {"sent"}:  # what a server says about success is on the page of the event
        assert " ".join(str(each) for each in reply if each) in shown
    assert row.shown in shown
    assert ("Next attempt" in shown) is ("deferred" in row.outcomes)
    assert {reason for reason, sentence in REASONS.items() if sentence in shown} == {row.reason} - {None}


@pytest.mark.parametrize(
    ("number", "row"), [(socket.EAI_AGAIN, deferred("", "", "name")), (socket.EAI_NONAME, held("", "", "name"))]
)
def test_the_name(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    row: Row,
) -> None:
    def look_up(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "mail.acme.example":
            raise socket.gaierror(number, "as the resolver says")
        return real(host, *arguments, **named)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    use(app, working_tenant, 25, host="mail.acme.example")
    check(row, post, admin, working_tenant)


@pytest.mark.parametrize("closed_port", [closed_port, silent_port])
def test_the_connection(app: Flask, admin: FlaskClient, post: Post, working_tenant: str, closed_port: Any) -> None:
    with closed_port() as port:
        use(app, working_tenant, port)
        check(deferred("", "", "connect"), post, admin, working_tenant)


def test_starttls_that_is_not_offered(app: Flask, admin: FlaskClient, post: Post, working_tenant: str) -> None:
    with SmtpPeer() as peer:
        use(app, working_tenant, peer.port, **STARTTLS)
        check(held("", "", "tls"), post, admin, working_tenant)
        assert "MAIL" not in peer.conversations[0].verbs


def test_before_the_mail(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    certificate: trustme.LeafCert,
    subtests: pytest.Subtests,
) -> None:
    for row in BEFORE_MAIL:
        with subtests.test(str(row)), peer_for(app, working_tenant, certificate, **(row.server or {})) as peer:
            peer.script = {row.step: row.does}
            check(row, post, admin, working_tenant)
            assert "MAIL" not in peer.conversations[0].verbs


def test_a_mail(
    app: Flask,
    admin: FlaskClient,
    post: Post,
    working_tenant: str,
    certificate: trustme.LeafCert,
    subtests: pytest.Subtests,
) -> None:
    for row in OF_A_MAIL:
        with subtests.test(str(row)), peer_for(app, working_tenant, certificate) as peer:
            peer.script = {row.step: row.does}
            check(row, post, admin, working_tenant)


@pytest.mark.parametrize("ahead", [False, True], ids=["one_by_one", "ahead"])
def test_a_mail_on_a_kept_session(
    app: Flask,
    post: Post,
    working_tenant: str,
    certificate: trustme.LeafCert,
    subtests: pytest.Subtests,
    ahead: bool,
) -> None:
    for row in OF_A_MAIL:
        with subtests.test(str(row)), peer_for(app, working_tenant, certificate, ahead=ahead) as peer:
            assert post().json["status"] == "sent"
            peer.script = {row.step: row.does}
            check_answer(row, post)
            assert len(peer.conversations) == (2 if row.step == "mail" or row.code == 421 else 1)
