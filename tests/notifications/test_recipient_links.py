"""The links with which recipients change what they get: whom they let do what, and what is sent with each email."""

import base64
import email
import email.policy
import re
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.accounts import rate_limits
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender
from portal.notifications import recipient_links, recipients
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.audit.test_log import recorded
from tests.concurrency import blocked_until_done
from tests.deliveries.test_quiet_hours import NIGHT, OPS, acme, recipient
from tests.due_emails import send_due_emails
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

LINK = re.compile(r"http://portal\.test(/email-settings/[\w-]+)")
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
RULES: dict[str, Any] = {
    "event": ["queue.call_lost"],
    "queues": "8000\uff1b Support",
    "quiet_day": [0, 1],
    "quiet_from": "22:00",
}


def link_to(app: Flask, address: str = OPS) -> str:
    """Return the path of a new link."""
    with app.app_context():
        return recipient_links.new_url(acme().id, address).removeprefix("http://portal.test")


def sent(peer: SmtpPeer, number: int = -1) -> EmailMessage:
    message = email.message_from_bytes(peer.messages[number].content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text(message: EmailMessage, kind: str = "plain") -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_the_page_of_a_recipient(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    page = client.get(link_to(app))
    assert OPS in page.text
    assert NIGHT not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "same-origin", "another site gets no part of the URL"


def test_a_recipient_changes_what_they_get(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    path = link_to(app)
    with app.app_context():
        before = len(recorded())
    assert submit(client, path, quiet_until="07:00", **RULES).status_code == 303
    with app.app_context():
        acme()
        ops, night = (recipient(address) for address in (OPS, NIGHT))
        assert sorted({*EVENT_TYPES} - {*ops.excluded_event_types}) == ["queue.call_lost"]
        assert ops.queues == ["8000", "Support"]
        assert (ops.quiet_days, str(ops.quiet_from), str(ops.quiet_until)) == ([0, 1], "22:00:00", "07:00:00")
        assert (night.excluded_event_types, night.queues, night.quiet_days) == ([], [], [])
        entries = recorded(before)
        assert [entry[:2] for entry in entries] == [("recipient.events_chosen", OPS), ("recipient.changed", OPS)]
        assert entries[1][2]["quiet_hours"] == [None, "22:00 to 07:00 on Mon, Tue"]
        assert {row[0] for row in sql("SELECT actor FROM audit_entries WHERE action LIKE 'recipient.%'")} == {OPS}
    assert 'value="22:00"' in client.get(path).text


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet_until": "", "quiet_from": "22:00", "quiet_day": [0]},
        {"quiet_until": "07:00", "quiet_from": "22:00", "quiet_day": []},
        {"quiet_until": "25:00", "quiet_from": "22:00", "quiet_day": [0]},
        {"quiet_until": "22:00", "quiet_from": "22:00", "quiet_day": list(range(7))},
        {"quiet_day": [7]},
        {"event": ["queue.nothing"]},
        {"queues": "x" * 501},
    ],
)
def test_wrong_rules_are_rejected(app: Flask, client: FlaskClient, working_tenant: str, wrong: dict[str, Any]) -> None:
    assert submit(client, link_to(app), **wrong).status_code == 422
    with app.app_context():
        acme()
        assert recipient(OPS).excluded_event_types == []


def test_queues_are_cleaned_as_in_an_event(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    """A number copied from a contact list has marks for the direction of text around it, which nobody sees."""
    assert submit(client, link_to(app), queues="\u202a8000\u202c, Support\u200f").status_code == 303
    with app.app_context():
        acme()
        assert recipient(OPS).queues == ["8000", "Support"]


@pytest.mark.parametrize(("days", "shown"), [("1", "until the pause ends"), ("7", "ends"), ("", "until you resume")])
def test_a_pause_and_its_end(app: Flask, client: FlaskClient, working_tenant: str, days: str, shown: str) -> None:
    path = link_to(app)
    assert submit(client, path, f"{path}/pause", days=days).status_code == 303
    assert shown in client.get(path).text
    with app.app_context():
        acme()
        assert recipient(OPS).is_paused
        assert recipient(OPS).is_paused_indefinitely is (days == "")
    assert submit(client, path, f"{path}/resume").status_code == 303
    with app.app_context():
        acme()
        assert not recipient(OPS).is_paused
    assert submit(client, path, f"{path}/pause", days="999999").status_code == 400


def test_opening_a_link_changes_nothing(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    path = link_to(app)
    with app.app_context():
        before = len(recorded())
    for suffix, method in product(("", "/unsubscribe"), ("GET", "HEAD")):
        assert client.open(path + suffix, method=method).status_code in {200, 302}
    for suffix in ("/pause", "/resume", "/link"):
        assert client.get(path + suffix).status_code == 405
        assert client.post(path + suffix).status_code == 400, "without the page's CSRF token"
    with app.app_context():
        assert not recorded(before)


@pytest.mark.parametrize("media_type", ["multipart/form-data", "application/x-www-form-urlencoded"])
def test_one_click_pauses_until_resumed(app: Flask, client: FlaskClient, working_tenant: str, media_type: str) -> None:
    path = link_to(app)
    assert client.post(f"{path}/unsubscribe").status_code == 400
    assert client.post(f"{path}/unsubscribe", data=ONE_CLICK, content_type=media_type).status_code == 204
    with app.app_context():
        acme()
        assert recipient(OPS).is_paused_indefinitely
        assert not recipient(NIGHT).is_paused


def tampered(path: str) -> Iterator[str]:
    """Yield links that differ from a valid one: in each of its bytes, its length, its alphabet."""
    head, _, token = path.rpartition("/")
    raw = bytearray(base64.urlsafe_b64decode(f"{token}=="))
    for position in range(len(raw)):
        changed = raw.copy()
        changed[position] ^= 1
        yield f"{head}/{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}"
    for other in (token[:-1], f"{token}A", f"{token}==", token[:-1] + "_", token.lower(), "A" * 54, "x", "é" * 54):
        if other != token:
            yield f"{head}/{other}"


def test_a_tampered_link_does_not_work(
    app: Flask, client: FlaskClient, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "enforce", lambda *_, **__: None)
    paths = [*tampered(link_to(app)), *tampered(link_to(app, ""))]
    assert len(paths) > 80
    assert {client.get(path).status_code for path in paths} == {404}
    assert {client.post(f"{path}/unsubscribe", data=ONE_CLICK).status_code for path in paths[:10]} == {404}


def test_a_link_is_for_one_recipient_of_one_tenant(
    app: Flask, client: FlaskClient, working_tenant: str, globex: str
) -> None:
    with app.app_context():
        other = tenant_service.find(globex)
        assert isinstance(other, Tenant)
        enter_scope(other.id)
        recipients.replace(other, [OPS, "boss@globex.example"])
        both = [recipient_links.new_url(tenant.id, OPS) for tenant in (acme(), other)]
        tokens = [base64.urlsafe_b64decode(url.rpartition("/")[2] + "==") for url in both]
    # The head names the other tenant, in which there is a recipient with the same email address.
    forged = base64.urlsafe_b64encode(tokens[1][:8] + tokens[0][8:]).rstrip(b"=").decode()
    assert client.get(f"/email-settings/{forged}").status_code == 404
    page = client.get(both[1].removeprefix("http://portal.test")).text
    assert "Globex" in page
    assert "Acme" not in page


def test_a_removed_recipients_link_does_not_work(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    path = link_to(app)
    with app.app_context():
        recipients.remove(acme(), recipient(OPS))
    assert client.get(path).status_code == 404
    assert client.post(f"{path}/unsubscribe", data=ONE_CLICK).status_code == 404


def test_an_expired_link_sends_a_new_one(
    app: Flask, client: FlaskClient, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = link_to(app)
    monkeypatch.setattr(recipient_links, "LIFETIME", -recipient_links.LIFETIME)
    page = client.get(path).text
    assert OPS not in page, "who finds an old link learns nothing"
    assert "enter your email address" in page
    assert client.post(f"{path}/unsubscribe", data=ONE_CLICK).status_code == 404
    monkeypatch.undo()
    ask(client, link_to(app, ""), OPS)
    with app.app_context():
        send_due_emails()
    assert peer.messages[-1].recipients == [OPS]
    (new,) = set(LINK.findall(text(sent(peer))))
    assert OPS in client.get(new).text


def ask(client: FlaskClient, path: str, address: str) -> TestResponse:
    return submit(client, path, f"{path}/link", email=address)


def test_the_answer_is_the_same_for_strangers(
    app: Flask, client: FlaskClient, working_tenant: str, peer: SmtpPeer
) -> None:
    path = link_to(app, "")
    assert OPS not in client.get(path).text
    answers = []
    for address in (OPS, "nobody@acme.example"):
        assert ask(client, path, address).status_code == 303
        answers.append(client.get(path).text.replace(address, ""))
    without_token = [re.sub(r'"[\w.-]{60,}"|"X-CSRFToken[^}]*', "", answer) for answer in answers]
    assert without_token[0] == without_token[1]
    with app.app_context():
        send_due_emails()
        assert sql("SELECT count(*) FROM events")[0][0] == 1
    assert [mail.recipients for mail in peer.messages] == [[OPS]]


def test_a_link_can_be_asked_for_three_times_an_hour(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    path = link_to(app, "")
    answers = [ask(client, path, address).status_code for address in (OPS, OPS.upper(), OPS, OPS)]
    assert answers == [303, 303, 303, 429]


def test_each_event_email_has_a_link(
    app: Flask, client: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    assert post().json["status"] == "sent"
    message = sent(peer)
    (path,) = set(LINK.findall(text(message)))
    assert path in text(message, "html")
    assert message["List-Unsubscribe"] == f"<http://portal.test{path}/unsubscribe>"
    assert message["List-Unsubscribe-Post"] is None, "it has two recipients"
    page = client.get(path).text
    assert "enter your email address" in page
    with app.app_context():
        recipients.pause(acme(), recipient(NIGHT), None)
    post()
    (path,) = set(LINK.findall(text(sent(peer))))
    assert OPS in client.get(path).text


def test_the_new_users_email_has_none(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post("user.created", {"extension_number": "101", "email": "ann@acme.example"})
    messages = {tuple(mail.recipients): sent(peer, number) for number, mail in enumerate(peer.messages)}
    to_user, to_recipients = messages["ann@acme.example",], messages[OPS, NIGHT]
    assert (to_user["List-Unsubscribe"], LINK.search(text(to_user))) == (None, None)
    assert to_recipients["List-Unsubscribe"]
    assert LINK.search(text(to_recipients))


@pytest.mark.parametrize(
    ("url", "is_personal", "headers"),
    [
        ("https://p.example/email-settings/x", True, ["List-Unsubscribe", "List-Unsubscribe-Post"]),
        ("https://p.example/email-settings/x", False, ["List-Unsubscribe"]),
        ("http://p.example/email-settings/x", True, ["List-Unsubscribe"]),
        (f"https://p.example/{'x' * 500}", True, ["List-Unsubscribe", "List-Unsubscribe-Post"]),
        (None, True, []),
    ],
)
def test_the_headers(url: str | None, is_personal: bool, headers: Sequence[str]) -> None:
    message = MimeMessage(
        MessageContent.of("Subject", "Text", ""),
        Sender("pbx@acme.example"),
        [OPS],
        message_id="<one@acme.example>",
        date=email.utils.parsedate_to_datetime("Mon, 23 Nov 2026 10:00:00 +0000"),
        unsubscribe_url=url,
        is_personal=is_personal,
    )
    parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert [name for name in parsed if name.startswith("List-")] == headers
    if url:
        assert parsed["List-Unsubscribe"] == f"<{url}>"


def test_the_link_is_no_secret_of_the_log(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post(data=CALL_LOST)
    (path,) = set(LINK.findall(text(sent(peer))))
    with app.app_context():
        tables = [row[0] for row in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        for table in tables:
            rows = sql(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE :token", token=f"%{path[-20:]}%")
            assert rows[0][0] == 0, table


def test_a_concurrently_removed_recipient_changes_nothing(app: Flask, client: FlaskClient, working_tenant: str) -> None:
    path = link_to(app)
    form = {"csrf_token": csrf_token(client.get(path).text), "days": "7"}
    with app.app_context():
        tenant = acme()
        first, *_ = recipients.lock_recipients(tenant)
        with blocked_until_done(app, lambda: client.post(f"{path}/pause", data=form)) as answer:
            recipients.remove(tenant, first)
            assert answer.result().status_code == 404
