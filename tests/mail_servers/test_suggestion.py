"""Typing an email suggests its provider: asked of the DNS, and accepted by one click."""

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.models import Account
from portal.extensions import db
from portal.mail_servers import dns_lookup, suggestion
from portal.mail_servers.suggestion import suggest_provider
from tests.dns_server import DnsFault, DnsServer, dns_server
from tests.pages import HTMX, csrf_token, post, read_form

__all__ = ["dns_server"]


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/mail-server"


def values(**changes: str) -> dict[str, Any]:
    return {
        "provider": "smtp",
        "host": "",
        "port": "587",
        "encryption": "starttls",
        "auth_mode": "auto",
        "username": "",
        "sender_email": "",
    } | changes


def ask(browser: FlaskClient, page: str, **changes: str) -> str:
    return post(browser, page, f"{page}?suggest=y", htmx=True, **values(**changes)).text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exchanger", "label", "host"),
    [
        ("acme-com.mail.protection.outlook.com.", "Microsoft 365", "smtp.office365.com"),
        ("acme-com.a-v1.mx.microsoft.", "Microsoft 365", "smtp.office365.com"),
        ("aspmx.l.google.com.", "Google Gmail", "smtp.gmail.com"),
        ("SMTP.google.com.", "Google Gmail", "smtp.gmail.com"),
        ("mx2.zoho.eu.", "Zoho Mail", "smtppro.zoho.eu"),
        ("mx.zoho.com.au.", "Zoho Mail", "smtppro.zoho.com.au"),
        ("mx01.ionos.de.", "IONOS", "smtp.ionos.de"),
        ("in1-smtp.messagingengine.com.", "Fastmail", "smtp.fastmail.com"),
        ("mx01.mail.icloud.com.", "iCloud Mail", "smtp.mail.me.com"),
        ("mta5.am0.yahoodns.net.", "Yahoo Mail", "smtp.mail.yahoo.com"),
        ("mail.protection.outlook.com.evil.net.", None, None),
        ("mx.acme.com.", None, None),
        (".", None, None),
    ],
)
def test_the_mail_exchanger_shows_the_provider(
    dns_server: DnsServer, admin: FlaskClient, page: str, exchanger: str, label: str | None, host: str | None
) -> None:
    dns_server.add("acme.com", "MX", f"10 {exchanger}")
    html = ask(admin, page, sender_email="pbx@acme.com")
    assert html.lstrip().startswith('<div class="suggestion" id="provider-suggestion"')
    assert ("This looks like" in html) is (label is not None)
    if label:
        assert f"This looks like {label}." in html
        assert f'formaction="{page}?fill_in={host}"' in html


def test_the_username_goes_before_the_sender(dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    dns_server.add("acme.com", "MX", "10 aspmx.l.google.com.")
    dns_server.add("other.com", "MX", "10 mx.zoho.com.")
    assert "Zoho" in ask(admin, page, username="x@other.com", sender_email="pbx@acme.com")
    assert "Google" in ask(admin, page, username="mailer", sender_email="pbx@acme.com")


def test_a_mailbox_providers_own_domain_needs_no_lookup(dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    assert "Google Gmail" in ask(admin, page, sender_email="acme@gmail.com")
    assert dns_server.queries == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    ["", "pbx", "pbx@", "@acme.com", "pbx@acme", "pbx@acme.internal", "pbx@[192.0.2.1]", "pbx@..", "x@" + "a" * 9999],
)
def test_what_is_no_email_is_not_looked_up(dns_server: DnsServer, admin: FlaskClient, page: str, typed: str) -> None:
    assert "This looks like" not in ask(admin, page, sender_email=typed, username=typed)
    assert dns_server.queries == []


def test_nothing_is_suggested_where_a_provider_is_chosen(dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    dns_server.add("acme.com", "MX", "10 aspmx.l.google.com.")
    for settings in ({"provider": "sendgrid"}, {"host": "smtp.gmail.com"}):
        assert "This looks like" not in ask(admin, page, sender_email="pbx@acme.com", **settings)


def test_without_javascript_a_button_asks_and_another_accepts(
    dns_server: DnsServer, admin: FlaskClient, page: str
) -> None:
    dns_server.add("acme.com", "MX", "10 mx.zoho.eu.")
    assert f'formaction="{page}?suggest=y"' in admin.get(page).text
    typed = values(sender_email="pbx@acme.com", recipients="new@acme.com")
    answer = post(admin, page, f"{page}?suggest=y", **typed)
    assert answer.text.startswith("<!doctype html>")
    assert "This looks like Zoho Mail." in answer.text
    form = read_form(answer.text, "mail-server")
    assert typed.items() <= form.items()  # nothing that was typed has changed
    accepted = read_form(post(admin, page, f"{page}?fill_in=smtppro.zoho.eu", **typed).text, "mail-server")
    zoho = {"provider": "zoho", "host": "smtppro.zoho.eu", "port": "465", "encryption": "tls"}
    assert (zoho | {"username": "pbx@acme.com", "sender_email": "pbx@acme.com"}).items() <= accepted.items()
    typed["username"] = "other@acme.com"
    accepted = read_form(post(admin, page, f"{page}?fill_in=smtppro.zoho.eu", **typed).text, "mail-server")
    assert accepted["username"] == "other@acme.com"


def test_an_unknown_host_is_not_filled_in(admin: FlaskClient, page: str) -> None:
    html = post(admin, page, f"{page}?fill_in=smtp.evil.example", **values(provider="fastmail")).text
    assert read_form(html, "mail-server")["host"] == "smtp.fastmail.com"


def test_the_system_has_it_too(dns_server: DnsServer, system: FlaskClient) -> None:
    dns_server.add("acme.com", "MX", "10 aspmx.l.google.com.")
    assert "Google Gmail" in ask(system, "/system/mail-server", sender_email="pbx@acme.com")


def test_a_silent_dns_is_no_error(
    dns_server: DnsServer, admin: FlaskClient, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestion, "TIME_LIMIT", 0.2)
    dns_server.faults["acme.com"] = DnsFault.SILENCE
    assert "This looks like" not in ask(admin, page, sender_email="pbx@acme.com")


def test_an_account_may_ask_twenty_times_a_minute(dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    token = csrf_token(admin.get(page).text)
    for number in range(25):
        data = values(sender_email=f"pbx@acme{number}.com", csrf_token=token)
        assert admin.post(f"{page}?suggest=y", data=data, headers=HTMX).status_code == 200
    assert len(dns_server.queries) in (20, 21)


def test_an_account_holds_one_lookup_at_a_time(
    dns_server: DnsServer, app: Flask, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestion, "TIME_LIMIT", 60)
    monkeypatch.setattr(dns_lookup, "LOOKUP_TIMEOUT", 60)
    dns_lookup.resolver().timeout = 0.1  # until a query is repeated
    dns_server.add("acme.com", "MX", "10 aspmx.l.google.com.")
    dns_server.faults["slow.com"] = DnsFault.SILENCE

    def ask_for(domain: str) -> suggestion.Suggestion | None:
        with app.app_context():
            account = db.session.query(Account).one()
            return suggest_provider(account, [f"pbx@{domain}"])

    slow = threading.Thread(target=ask_for, args=["slow.com"])
    slow.start()
    while not dns_server.queries:
        pass
    assert ask_for("acme.com") is None
    assert slow.is_alive()
    del dns_server.faults["slow.com"]
    slow.join()
    assert ask_for("acme.com") == suggestion.Suggestion("Google Gmail", "smtp.gmail.com")
