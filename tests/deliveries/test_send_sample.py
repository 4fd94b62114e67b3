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

from portal.accounts.rate_limits import ACCOUNT, HOUR, Limit, Rule
from portal.database.scope import enter_scope
from portal.events.samples import SAMPLE_NOTICE, mark_as_sample
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.mime import MessageContent
from portal.notifications import recipients, settings
from portal.notifications.settings import Audience
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.pages import HTMX, csrf_token
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE

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
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        how(tenant)


def read(peer: SmtpPeer) -> list[tuple[list[str], EmailMessage]]:
    """Return what arrived: for whom, and the mail."""
    mails = [(mail.recipients, mail.content) for mail in peer.messages]
    return [(to, email.message_from_bytes(content, policy=email.policy.default)) for to, content in mails]


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_it_is_sent_recorded_and_marked_everywhere(
    app: Flask, admin: FlaskClient, working_tenant: str, peer: SmtpPeer, kind: Any
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
            assert SAMPLE_NOTICE in " ".join(body.get_content().split())
    with app.app_context():
        assert sql("SELECT type, is_sample, secrets_encrypted FROM events") == [(kind.type, True, None)]
    log = admin.get("/tenants/acme.example/deliveries").text
    assert "Sample</span>" in log
    assert "Sent" in log


def test_nobody_whom_it_names_is_mailed_and_its_qr_code_is_no_token(
    app: Flask, admin: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    ask(admin, "user.created")
    named = EVENT_TYPES["user.created"].sample["email"]
    assert all(named not in to for to, _ in read(peer))
    with app.app_context():
        assert sql("SELECT count(*) FROM provisioning_tokens") == [(0,)]
    assert b"/provision/sample" in peer.messages[0].content


def test_where_only_the_user_is_mailed_the_asker_is(
    app: Flask, admin: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    change(app, lambda tenant: settings.set_audience(tenant, "user.created", Audience.USER))
    ask(admin, "user.created")
    assert [to for to, _ in read(peer)] == [[ADMIN]]


def test_it_neither_counts_towards_a_storm_nor_is_held_by_one(
    app: Flask, admin: FlaskClient, working_tenant: str, post: Any, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("UPDATE tenants SET storm_limit = 1")
    ask(admin, "queue.call_lost")
    data = dict(EVENT_TYPES["queue.call_lost"].sample)
    assert [post(data=data).json["status"] for _ in range(2)] == ["sent", "held"]
    assert "The sample was sent to 2 people." in ask(admin, "queue.call_lost").text


def test_why_it_was_not_sent_is_told_in_words(
    app: Flask, admin: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "554 5.7.1 this looks like spam"}
    refused = ask(admin, "queue.call_lost").text
    assert "The mail server rejected the sample." in refused
    assert "this looks like spam" in refused
    change(app, lambda tenant: recipients.replace(tenant, []))
    assert "There are no recipients." in ask(admin, "queue.call_lost").text
    change(app, lambda tenant: mail_server_settings.remove(tenant.id))
    change(app, lambda tenant: recipients.replace(tenant, PEOPLE))
    assert "No mail server is set up." in ask(admin, "queue.call_lost").text
    change(app, lambda tenant: settings.set_enabled(tenant, EVENT_TYPES, on=False))
    assert "Send a sample" not in admin.get(PAGE).text
    assert "This event is switched off." in ask(admin, "queue.call_lost").text


def test_one_that_waits_is_given_up_after_an_hour(
    app: Flask, admin: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    assert "The portal keeps trying for an hour." in ask(admin, "queue.call_lost").text
    with app.app_context():
        ((expires_at,),) = sql("SELECT expires_at FROM deliveries")
    assert timedelta(minutes=59) < expires_at - datetime.now(UTC) <= timedelta(hours=1)


def test_without_javascript_it_leads_to_the_log(admin: FlaskClient, working_tenant: str, peer: SmtpPeer) -> None:
    answer = ask(admin, "queue.call_lost", htmx=False)
    assert (answer.status_code, answer.location) == (303, "/tenants/acme.example/deliveries")
    assert "The sample is at the top of this log." in admin.get(answer.location).text


def test_who_sent_it_is_in_the_audit_trail(admin: FlaskClient, working_tenant: str, peer: SmtpPeer) -> None:
    ask(admin, "queue.call_lost")
    trail = admin.get("/tenants/acme.example/audit").text
    assert "requested a sample of the event" in trail


def test_it_is_as_rare_as_a_test_e_mail_and_of_known_kinds_only(
    admin: FlaskClient, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Limit(10, HOUR, ACCOUNT)  # on a busy machine ten samples take long enough that another one is free
    monkeypatch.setattr(test_email, "RATE_LIMIT", Rule("test email", (slow,)))
    assert ask(admin, "queue.exploded").status_code == 404
    assert [ask(admin, "queue.call_lost").status_code for _ in range(10)] == [200] * 9 + [429]


def test_a_template_without_a_body_tag_is_marked_too() -> None:
    words = mark_as_sample(MessageContent.of("Hi", "text\n", "<p>whole</p>"))
    assert words.html.endswith("<p>whole</p>")
    assert SAMPLE_NOTICE in words.html
    assert mark_as_sample(words._replace(encoded_html="")).html == ""
