"""The table of providers, and what the page fills in from it."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.config import ROOT
from portal.database.scope import enter_scope
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.advice import is_host_of
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.models import MailServer
from portal.mail_servers.providers import PROVIDERS, helo_name_for, key_of
from portal.mail_servers.service import connection_settings
from portal.mail_servers.smtp import client, test_email
from portal.mail_servers.smtp.client import AuthMode, SmtpSettings
from portal.mail_servers.smtp.connect import resolve_numeric
from portal.mail_servers.smtp.mime import Sender
from portal.mail_servers.smtp.network_policy import SMTP_PORTS
from portal.notifications.recipients import MAX_RECIPIENTS
from portal.tenants import service as tenant_service
from tests.pages import HTMX, post, read_form
from tests.smtp_peer import LOCAL, SmtpPeer
from tests.tenant_fixtures import entered

RELAY = "smtp-relay.gmail.com"
NAMED = {key: provider for key, provider in PROVIDERS.items() if provider.host}


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/mail-server"


@pytest.mark.parametrize("key", NAMED)
def test_an_entry_is_consistent(key: str) -> None:
    provider = NAMED[key]
    hosts = list(provider.hosts) or [provider.host]
    assert provider.host == hosts[0]
    assert [key_of(host) for host in hosts] == [key] * len(hosts)
    assert bool(provider.choice) == bool(provider.hosts)
    assert provider.port in SMTP_PORTS
    assert provider.hint
    assert set(provider.mx.values()) <= set(hosts)
    assert all(re.compile(pattern) for pattern in provider.mx)
    assert provider.spf_of_host.keys() <= set(hosts)
    assert set(provider.spf_of_host.values()) <= set(provider.spf)


def test_no_mail_exchanger_is_of_two_providers() -> None:
    known = ("acme.mail.protection.outlook.com", "aspmx.l.google.com", "mx.zoho.eu", "mx00.ionos.de", "mx00.gmx.net")
    for host in known:
        hits = [key for key, provider in NAMED.items() for pattern in provider.mx if is_host_of(pattern, host)]
        assert len(hits) == 1, host


@pytest.mark.parametrize(
    ("chosen", "host", "label"),
    [
        ("ses", "email-smtp.eu-central-1.amazonaws.com", "Region"),
        ("zoho", "smtppro.zoho.in", "Data centre"),
        ("postmark", "smtp-broadcasts.postmarkapp.com", "Message stream"),
        ("ionos", "smtp.ionos.co.uk", "Country"),
        ("mailgun", "smtp.eu.mailgun.org", "Region"),
    ],
)
def test_a_providers_hosts_are_a_choice(admin: FlaskClient, page: str, chosen: str, host: str, label: str) -> None:
    html = admin.get(f"{page}?provider={chosen}", headers=HTMX).text
    assert f'<label for="provider_host">{label}</label>' in html
    first = read_form(html, "mail-server")
    assert first["host"] == first["provider_host"] == PROVIDERS[chosen].host
    form = read_form(admin.get(f"{page}?provider={chosen}&provider_host={host}", headers=HTMX).text, "mail-server")
    assert form["host"] == form["provider_host"] == host
    without_javascript: dict[str, Any] = {"provider": chosen, "provider_host": host, "host": first["host"]}
    form = read_form(post(admin, page, f"{page}?fill_in=y", **without_javascript).text, "mail-server")
    assert form["host"] == form["provider_host"] == host


def test_a_choice_that_was_not_filled_in_is_not_lost_silently(admin: FlaskClient, page: str) -> None:
    values: dict[str, Any] = {
        "provider": "postmark",
        "provider_host": "smtp-broadcasts.postmarkapp.com",
        "host": "smtp.postmarkapp.com",
        "port": "587",
        "encryption": "starttls",
        "auth_mode": "auto",
        "username": "token",
        "password": "token",
        "sender_email": "pbx@acme.example",
    }
    answer = post(admin, page, **values)
    assert answer.status_code == 422
    assert "does not match the server address" in answer.text
    assert post(admin, page, **values | {"host": "smtp-broadcasts.postmarkapp.com"}).status_code == 303
    assert read_form(admin.get(page).text, "mail-server")["provider_host"] == "smtp-broadcasts.postmarkapp.com"


def test_another_host_of_a_provider_may_be_entered(admin: FlaskClient, page: str) -> None:
    host = "vpce-1.email-smtp.eu-west-1.vpce.amazonaws.com"
    form: dict[str, Any] = {"provider": "ses", "host": host, "port": "587", "username": "key", "password": "key"}
    choices: dict[str, Any] = {"encryption": "starttls", "auth_mode": "auto", "sender_email": "pbx@acme.example"}
    assert post(admin, page, **form, **choices).status_code == 303
    shown = read_form(admin.get(page).text, "mail-server")
    assert (shown["host"], shown["provider_host"]) == (host, "")


@pytest.mark.parametrize(
    ("provider", "auth_mode", "warns"),
    [("microsoft365", "auto", True), ("microsoft365", "oauth", False), ("gmail", "auto", False)],
)
def test_a_password_at_microsoft_365_brings_a_warning(app: Flask, provider: str, auth_mode: str, warns: bool) -> None:
    with app.test_request_context():
        form = MailServerForm.from_values({"provider": provider, "auth_mode": auth_mode})
        assert ("end of December 2026" in form.warning) == warns


def test_oauth_is_chosen_for_microsoft_365(admin: FlaskClient, page: str) -> None:
    for provider, mode in (("microsoft365", "oauth"), ("gmail", "auto")):
        form = read_form(admin.get(f"{page}?provider={provider}").text, "mail-server")
        assert form["auth_mode"] == mode


def test_a_provider_of_an_earlier_version_is_found_by_its_host(app: Flask, admin: FlaskClient, page: str) -> None:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        mail_server_service.save(tenant.id, entered(587, host="smtp.eu.mailgun.org", provider="mailgun-eu"))
    form = read_form(admin.get(page).text, "mail-server")
    assert (form["provider"], form["provider_host"]) == ("mailgun", "smtp.eu.mailgun.org")


class TestGoogleRelay:
    """It has no sign-in: it looks at the IP address, the EHLO name and the sender's domain."""

    def test_it_is_filled_in_without_sign_in(self, admin: FlaskClient, page: str) -> None:
        form = read_form(admin.get(f"{page}?provider=google-relay", headers=HTMX).text, "mail-server")
        assert (form["host"], form["port"], form["auth_mode"]) == (RELAY, "587", "none")
        changed: dict[str, Any] = form | {"provider": "gmail"}
        form = read_form(post(admin, page, f"{page}?fill_in=y", **changed).text, "mail-server")
        assert (form["host"], form["auth_mode"]) == ("smtp.gmail.com", "auto")

    @pytest.mark.usefixtures("context")
    def test_it_is_greeted_with_the_senders_domain(self) -> None:
        settings = entered(587, host=RELAY, auth_mode=AuthMode.NONE, sender_email="pbx@acme.example")
        tested = connection_settings(None, settings)
        saved = mail_server_service.save(None, settings)
        assert isinstance(tested, SmtpSettings)
        assert isinstance(saved, MailServer)
        assert tested.helo_name == saved.smtp_settings.helo_name == "acme.example"
        assert helo_name_for("smtp.gmail.com", "pbx@acme.example") is None
        other = connection_settings(None, entered(587, host="smtp.gmail.com", sender_email="pbx@acme.example"))
        assert isinstance(other, SmtpSettings)
        assert other.helo_name != "acme.example"

    @pytest.mark.usefixtures("context")
    def test_the_name_is_what_the_server_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "resolve", lambda _host, port, *_: resolve_numeric("127.0.0.1", port))
        with SmtpPeer() as peer:
            settings = SmtpSettings(
                RELAY, peer.port, client.Encryption.NONE, AuthMode.NONE, None, None, LOCAL, "acme.example"
            )
            sender, to = Sender("pbx@acme.example", "Acme"), ["a@acme.example"]
            result = test_email.final_result(test_email.send_test(settings, sender, to, RELAY))
            assert result.state == "sent"
            assert peer.conversations[0].commands[0] == "ehlo acme.example"

    def test_its_limit_of_recipients_is_never_reached(self) -> None:
        assert MAX_RECIPIENTS + 1 <= 100  # and a new user


def test_the_guide_has_all_providers() -> None:
    guide = (ROOT / "docs/guides/mail-providers.md").read_text()
    missing = [key for key, provider in NAMED.items() if provider.host not in guide and provider.label not in guide]
    assert missing == []
