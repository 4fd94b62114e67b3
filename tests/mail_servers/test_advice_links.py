"""What a test email says when it fails: the cause in its headline, and where its advice can be followed."""

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.outcome import ADVICE, ReplyKind, SmtpReply, Stage, classify
from tests.mail_servers.test_views import values
from tests.pages import post
from tests.smtp_peer import SmtpPeer
from tests.sql_log import Statements, statements

__all__ = ["statements"]

PAGE = "/tenants/acme.example/mail-server"
SETTINGS = SmtpSettings("smtp.acme.example", 587, Encryption.STARTTLS, AuthMode.AUTO, "mailer", "secret")
RESULT = re.compile(r'<div role="status" id="test-email-result">(.*?)\n  </div>\n', re.DOTALL)


def _failure(stage: Stage, code: int | None, text: str, *, settings: bool = False) -> SmtpReply:
    reply = classify(stage, code, text)
    return replace(reply, kind=ReplyKind.SETTINGS) if settings else reply


@pytest.mark.parametrize(
    ("reply", "headline", "field"),
    [
        (_failure(Stage.NAME, None, "No such mail server.", settings=True), "The mail server was not found.", "host"),
        (
            _failure(Stage.NAME, None, "The name could not be looked up."),
            "The mail server's name could not be looked up.",
            "host",
        ),
        (_failure(Stage.CONNECT, None, "No response in time."), "The mail server does not answer.", "host"),
        (_failure(Stage.CONNECT, None, "The connection was refused."), "The connection was refused.", "port"),
        (
            _failure(Stage.TLS, None, "The certificate is not accepted: certificate has expired", settings=True),
            "The certificate has expired.",
            "encryption",
        ),
        (
            _failure(
                Stage.TLS,
                None,
                "The certificate is not accepted: it is not valid for this server address.",
                settings=True,
            ),
            "The certificate is for a different name.",
            "host",
        ),
        (
            _failure(Stage.TLS, None, "The certificate is not accepted: self-signed certificate", settings=True),
            "The certificate is not trusted.",
            "encryption",
        ),
        (
            _failure(Stage.TLS, None, "The mail server does not offer STARTTLS.", settings=True),
            "Connected, but the mail server does not offer STARTTLS.",
            "encryption",
        ),
        (_failure(Stage.GREETING, None, "The reply is not SMTP."), "Connected, but not to a mail server.", "port"),
        (
            _failure(Stage.AUTH, 535, "5.7.8 bad credentials"),
            "Connected, encrypted, but the username or the password was rejected.",
            "password",
        ),
        (
            _failure(Stage.AUTH, None, "The mail server offers only NTLM.", settings=True),
            "Connected, encrypted, but this sign-in method is not accepted.",
            "auth_mode",
        ),
        (_failure(Stage.AUTH, 454, "4.7.0 later"), "Connected, encrypted, but sign-in failed.", "password"),
        (
            _failure(Stage.MAIL, 550, "5.7.60 sender not allowed"),
            "Connected, encrypted, signed in, but the sender was rejected.",
            "sender_email",
        ),
        (
            _failure(Stage.RCPT, 550, "5.1.1 no such user"),
            "Connected, encrypted, signed in, but a recipient was rejected.",
            "recipients",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_headline_names_the_cause_and_the_advice_its_field(
    context: Flask, reply: SmtpReply, headline: str, field: str
) -> None:
    assert test_email._failed(SETTINGS, reply, is_sample=False) == headline
    assert test_email._place_to_follow(SETTINGS, "smtp.acme.example", reply) == (field, "")
    assert test_email._place_to_follow(SETTINGS, "", reply) == ("", ""), "nothing about somebody else's mail server"


def test_a_providers_advice_leads_to_its_own_page(context: Flask) -> None:
    rejected = _failure(Stage.AUTH, 535, "5.7.8 Username and Password not accepted")
    gmail = replace(SETTINGS, host="smtp.gmail.com")
    assert test_email._place_to_follow(gmail, gmail.host, rejected) == ("", "https://myaccount.google.com/apppasswords")
    with_oauth = replace(gmail, auth_mode=AuthMode.OAUTH)
    assert test_email._place_to_follow(with_oauth, gmail.host, rejected) == ("connection", "")


def test_only_advice_of_a_provider_leads_elsewhere_and_every_field_exists(admin: FlaskClient, acme: str) -> None:
    page = admin.get(PAGE).text
    for advice in ADVICE:
        assert not advice.url or (advice.hosts and advice.url.startswith("https://"))
        assert not advice.field or f'id="{advice.field}"' in page


def _result(html: str) -> str:
    found = RESULT.search(html)
    assert found
    return " ".join(unescape(re.sub(r"<svg.*?</svg>", "", found[1], flags=re.DOTALL)).split())


@pytest.mark.parametrize("htmx", [False, True])
def test_the_live_region_has_headline_advice_and_link(admin: FlaskClient, acme: str, htmx: bool) -> None:
    typed: dict[str, Any] = {"auth_mode": "plain", "username": "mailer", "password": "wrong"}
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        answer = post(admin, PAGE, f"{PAGE}/test", htmx=htmx, **values(peer.port, **typed))
    said, last = _result(answer.text), answer.text.rpartition('<ol class="test-steps"')[2]
    assert "Connected, but the username or the password was rejected." in said
    assert "check both" in said
    assert last.count("check both") == 1, "the advice is shown in the step that failed"
    assert '<a href="#password">Go to “Password”</a>' in last


def test_wrong_entries_lead_to_their_field(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, PAGE, f"{PAGE}/test", htmx=True, **values(0))
    assert '<a href="#port">Go to “SMTP Server Port”</a>' in _result(answer.text)


def test_a_rejected_recipient_leads_to_the_recipients_only_if_they_were_tried(admin: FlaskClient, acme: str) -> None:
    with SmtpPeer() as peer:
        post(admin, PAGE, **values(peer.port, recipients="a@acme.example"))
        peer.script = {"rcpt": "550 5.1.1 no such user"}
        link = '<a href="#recipients">Go to “Emails of Recipients”</a>'
        assert link in post(admin, PAGE, f"{PAGE}/test", **values(peer.port, to="recipients")).text
        assert link not in post(admin, PAGE, f"{PAGE}/test", **values(peer.port, to="me")).text


@pytest.mark.parametrize("htmx", [False, True])
def test_a_summary_above_the_form_leads_to_each_error(admin: FlaskClient, acme: str, htmx: bool) -> None:
    html = post(admin, PAGE, htmx=htmx, **values(0, recipients="nobody", reply_to="help")).text
    summary = html.partition('class="callout bad error-summary" tabindex="-1"')[2].partition("</ul>")[0]
    linked = re.findall(r'<a href="#(\w+)">', summary)
    assert linked == ["port", "recipients", "reply_to"]
    for field in linked:
        assert f'id="{field}-error"' in html
        assert re.search(rf'<(input|textarea)[^>]*aria-describedby="[^"]*{field}-error"[^>]*id="{field}"', html)
    assert "error-summary" not in admin.get(PAGE).text


def test_the_page_reads_each_table_once(admin: FlaskClient, acme: str, statements: Statements) -> None:
    post(admin, PAGE, **values(25, recipients="a@acme.example"))
    admin.get(PAGE)
    statements.clear()
    assert admin.get(PAGE).status_code == 200
    read = [re.findall(r"(?:FROM|JOIN) (\w+)", statement)[0] for statement in statements]
    assert read.count("mail_servers") == 1
    assert len(read) <= 10, read
