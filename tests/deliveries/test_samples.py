"""The sample of an event goes the whole way, says what it is, and surprises nobody."""

import email
import email.policy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.mail_servers import settings as mail_server_settings
from portal.mail_servers.composing import Words
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.notifications.samples import LINE, marked
from portal.notifications.switches import Audience
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.pages import HTMX, csrf_token
from tests.ready import PEOPLE
from tests.smtp_peer import SmtpPeer, unstuffed
from tests.sql import sql

ADMIN = "admin@acme.example"
PAGE = "/tenants/acme.example/notifications"


def ask(browser: FlaskClient, kind: str, *, htmx: bool = True) -> Any:
    """Press "Send a sample" of an event kind."""
    token = csrf_token(browser.get(PAGE).text)
    values = {"csrf_token": token, "event": kind}
    return browser.post("/tenants/acme.example/samples", data=values, headers=HTMX if htmx else None)


def change(app: Flask, how: Callable[[Tenant], object]) -> None:
    """Change something of Acme's."""
    with app.app_context():
        tenant = directory.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        how(tenant)


def read(peer: SmtpPeer) -> list[tuple[list[str], EmailMessage]]:
    """Return what arrived: for whom, and the mail."""
    mails = [(mail.recipients, unstuffed(mail.content)) for mail in peer.mails]
    return [(to, email.message_from_bytes(content, policy=email.policy.default)) for to, content in mails]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_is_sent_recorded_and_marked_everywhere(
    app: Flask, admin: FlaskClient, ready: str, peer: SmtpPeer, kind: Any
) -> None:
    answer = ask(admin, kind.type)
    assert "The sample was sent to" in answer.text
    assert f'id="sample-{kind.type.replace(".", "-")}"' in answer.text
    mails = read(peer)
    assert [to for to, _ in mails] == [PEOPLE] + ([[ADMIN]] if kind.has_user else [])
    for _, mail in mails:
        assert mail["Subject"].startswith("[Sample] ")
        for part in ("plain", "html"):
            body = mail.get_body((part,))
            assert body is not None
            assert LINE in " ".join(body.get_content().split())
    with app.app_context():
        assert sql("SELECT type, sample, secrets_encrypted FROM events") == [(kind.type, True, None)]
    log = admin.get("/tenants/acme.example/deliveries").text
    assert "Sample</span>" in log
    assert "Sent" in log


def test_nobody_whom_it_names_is_mailed_and_its_qr_code_is_no_token(
    app: Flask, admin: FlaskClient, ready: str, peer: SmtpPeer
) -> None:
    ask(admin, "user.created")
    named = KINDS["user.created"].sample["email"]
    assert all(named not in to for to, _ in read(peer))
    with app.app_context():
        assert sql("SELECT count(*) FROM provisioning_tokens") == [(0,)]
    assert b"/provision/sample" in unstuffed(peer.mails[0].content)


def test_where_only_the_user_is_mailed_the_asker_is(app: Flask, admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    change(app, lambda tenant: switches.choose_audience(tenant, "user.created", Audience.USER))
    ask(admin, "user.created")
    assert [to for to, _ in read(peer)] == [[ADMIN]]


def test_it_neither_counts_towards_a_storm_nor_is_held_by_one(
    app: Flask, admin: FlaskClient, ready: str, post: Any, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("UPDATE tenants SET storm_limit = 1")
    ask(admin, "queue.call_lost")
    data = dict(KINDS["queue.call_lost"].sample)
    assert [post(data=data).json["status"] for _ in range(2)] == ["sent", "held"]
    assert "The sample was sent to 2 people." in ask(admin, "queue.call_lost").text


def test_why_it_was_not_sent_is_told_in_words(app: Flask, admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "554 5.7.1 this looks like spam"}
    refused = ask(admin, "queue.call_lost").text
    assert "The mail server refused the sample." in refused
    assert "this looks like spam" in refused
    change(app, lambda tenant: recipients.replace(tenant, []))
    assert "There are no recipients." in ask(admin, "queue.call_lost").text
    change(app, lambda tenant: mail_server_settings.remove(tenant.id))
    change(app, lambda tenant: recipients.replace(tenant, PEOPLE))
    assert "No mail server is set." in ask(admin, "queue.call_lost").text
    change(app, lambda tenant: switches.turn(tenant, KINDS, on=False))
    assert "Send a sample" not in admin.get(PAGE).text
    assert "This event is switched off." in ask(admin, "queue.call_lost").text


def test_one_that_waits_is_given_up_after_an_hour(app: Flask, admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    assert "It is tried again for an hour." in ask(admin, "queue.call_lost").text
    with app.app_context():
        ((expires_at,),) = sql("SELECT expires_at FROM deliveries")
    assert timedelta(minutes=59) < expires_at - datetime.now(UTC) <= timedelta(hours=1)


def test_without_javascript_it_leads_to_the_log(admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    answer = ask(admin, "queue.call_lost", htmx=False)
    assert (answer.status_code, answer.location) == (303, "/tenants/acme.example/deliveries")
    assert "The sample stands on top of this log." in admin.get(answer.location).text


def test_who_sent_it_is_in_the_audit_trail(admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    ask(admin, "queue.call_lost")
    trail = admin.get("/tenants/acme.example/audit").text
    assert "sent a sample of the event" in trail


def test_it_is_as_rare_as_a_test_e_mail_and_of_known_kinds_only(admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    assert ask(admin, "queue.exploded").status_code == 404
    assert [ask(admin, "queue.call_lost").status_code for _ in range(10)] == [200] * 9 + [429]


def test_a_template_without_a_body_tag_is_marked_too() -> None:
    words = marked(Words("Hi", "text\n", "<p>whole</p>"))
    assert words.html.endswith("<p>whole</p>")
    assert LINE in words.html
    assert marked(words._replace(html="")).html == ""
