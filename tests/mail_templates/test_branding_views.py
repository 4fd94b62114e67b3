"""The page "Appearance": saving and the preview."""

import re
from email import message_from_bytes, policy
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web.i18n import LANGUAGES, html_language
from tests.pages import forge, post
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import Post, key, peer, working_tenant
from tests.tenant_fixtures import post as post_event

__all__ = ["key", "peer", "post_event", "working_tenant"]

WHOLE: dict[str, Any] = {"sender_name": "", "colour": "#3846c4", "footer": "", "language": "en"}
ODD: dict[str, Any] = {
    "sender_name": "Acme <Telefon>",
    "colour": "FFD400",
    "footer": "Acme & Co, %%DOMAIN%%\r\n\r\nhttps://acme.example/hilfe  ",
    "language": "de",
}


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/appearance"


def brand_of(app: Flask, domain: str) -> tuple[str | None, ...]:
    with app.app_context():
        tenant = tenant_service.find(domain)
        assert isinstance(tenant, Tenant)
        return tenant.sender_name, tenant.brand_color, tenant.email_footer, tenant.language


def frame(html: str) -> str:
    """Return the address of the mail in a page."""
    found = re.search(r'<iframe [^>]*sandbox="allow-popups allow-popups-to-escape-sandbox" src="([^"]*)"', html)
    assert found
    return unescape(found[1])


def test_branding_is_saved(app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
    answer = post(admin, page, **ODD)
    assert (answer.status_code, answer.location) == (303, page)
    saved = "Acme <Telefon>", "#ffd400", "Acme & Co, %%DOMAIN%%\n\nhttps://acme.example/hilfe", "de"
    assert brand_of(app, acme) == saved
    shown = unescape(admin.get(page).get_data(as_text=True))
    assert all(text in shown for text in ('value="Acme <Telefon>"', 'value="#ffd400"', "Acme & Co, %%DOMAIN%%"))
    assert '<option lang="de" selected value="de">Deutsch</option>' in shown


def test_defaults_are_saved_as_no_value(app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
    post(admin, page, **ODD)
    post(admin, page, **WHOLE)
    assert brand_of(app, acme) == (None, None, None, "en")
    post(admin, page, **WHOLE | {"colour": ""})
    assert brand_of(app, acme) == (None, None, None, "en")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sender_name": "x" * 101}, "Enter at most 100 characters."),
        ({"sender_name": "a\r\nBcc: x@y.example"}, "Control characters are not allowed here."),
        ({"colour": "red"}, "Write the colour like #3846c4"),
        ({"colour": "#fff;} body{"}, "Write the colour like #3846c4"),
        ({"footer": "x" * 501}, "Enter at most 500 characters."),
        ({"footer": "a\0b"}, "Control characters are not allowed here."),
        (
            {"footer": "%%EXTENSION_PASSWORD%%"},
            "You cannot use %%EXTENSION_PASSWORD%% in the footer, only",
        ),
        ({"language": "xx"}, "Choose one of the options."),
    ],
)
def test_branding_errors_are_shown(
    app: Flask, admin: FlaskClient, acme: str, page: str, changes: dict[str, Any], words: str
) -> None:
    answer = post(admin, page, **WHOLE | changes)
    assert answer.status_code == 422
    assert words in unescape(answer.get_data(as_text=True))
    assert brand_of(app, acme) == (None, None, None, "en")


def test_emails_use_the_branding(
    app: Flask, admin: FlaskClient, working_tenant: str, page: str, peer: SmtpPeer, post_event: Post
) -> None:
    post(admin, page, **ODD)
    assert post_event().json["status"] == "sent"
    mail = message_from_bytes(peer.messages[0].content, policy=policy.default)
    plain, page_of_it = mail.iter_parts()
    text, html = plain.get_content().replace("\r\n", "\n"), page_of_it.get_content()
    assert mail["From"] == '"Acme <Telefon>" <pbx@acme.example>'
    assert mail["Subject"] == "Anruf verloren in Warteschlange 8000: +442079460123"
    assert "border-top: 4px solid #ffd400" in html
    assert ">Acme &lt;Telefon&gt; <span" in html
    assert "Acme & Co, acme.example\n\nhttps://acme.example/hilfe\n\nSie erhalten diese E-Mail" in text


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("event_type", ALL_EVENT_TYPES)
def test_the_preview_shows_each_event_type_in_each_language(
    admin: FlaskClient, page: str, event_type: str, language: str
) -> None:
    answer = post(admin, page, f"{page}/preview", htmx=True, **ODD | {"event_type": event_type, "language": language})
    html = answer.get_data(as_text=True)
    assert html.startswith('<div id="preview">')
    mail = admin.get(frame(html))
    shown = mail.get_data(as_text=True)
    assert f'<html lang="{html_language(language)}">' in shown
    assert "#ffd400" in shown
    assert "Acme &lt;Telefon&gt;" in shown
    assert "sandbox allow-popups" in mail.headers["Content-Security-Policy"]
    assert "script-src" not in mail.headers["Content-Security-Policy"]
    assert "default-src 'none'" in mail.headers["Content-Security-Policy"]


def test_a_preview_saves_nothing(app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
    answer = post(admin, page, f"{page}/preview", **ODD | {"event_type": "user.created"})
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert '<option value="user.created" selected>' in html
    assert 'value="#ffd400"' in html
    assert brand_of(app, acme) == (None, None, None, "en")


def test_the_default_colour_can_be_chosen_without_javascript(admin: FlaskClient, page: str) -> None:
    html = post(admin, page, f"{page}/preview", **ODD | {"default_colour": "y"}).get_data(as_text=True)
    assert 'name="colour" value="#3846c4"' in html
    assert "#3846c4" in admin.get(frame(html)).get_data(as_text=True)


def test_the_preview_uses_saved_values_for_invalid_ones(admin: FlaskClient, page: str) -> None:
    post(admin, page, **ODD)
    half = ODD | {"colour": "#ff", "footer": "%%TEN", "sender_name": "New"}
    answer = post(admin, page, f"{page}/preview", htmx=True, **half)
    assert answer.status_code == 200
    mail = admin.get(frame(answer.get_data(as_text=True))).get_data(as_text=True)
    assert "#ffd400" in mail
    assert ">New <span" in mail
    refused = post(admin, page, f"{page}/preview", **half)
    assert refused.status_code == 422
    assert "Write the colour like" in refused.get_data(as_text=True)


def test_an_unknown_event_type_shows_the_first_one(admin: FlaskClient, page: str) -> None:
    html = post(admin, page, f"{page}/preview", htmx=True, **WHOLE | {"event_type": "no.such"}).get_data(as_text=True)
    assert "Call lost in queue Support" in html


def test_the_preview_url_is_signed_for_its_tenant(
    app: Flask, admin: FlaskClient, system: FlaskClient, page: str, globex: str
) -> None:
    address = frame(admin.get(page).get_data(as_text=True))
    assert admin.get(address).status_code == 200
    assert admin.get(forge(address)).status_code == 404
    assert admin.get(f"{page}/email/e30.x").status_code == 404
    other = f"/tenants/{globex}/appearance/email/{address.rpartition('/')[2]}"
    assert system.get(other).status_code == 404
