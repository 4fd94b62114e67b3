"""The language of the pages and emails of an account: the account's, else the browser's, else English."""

from datetime import timedelta
from typing import Any

import flask_security
import pytest
import wtforms
from babel.messages.pofile import read_po
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import emails
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.config import PRODUCT
from portal.events.types import EVENT_TYPES
from portal.mail_templates.compiler import default_template
from portal.mail_templates.custom_html.sanitizer import compile_html
from portal.web import library_texts
from portal.web.i18n import LANGUAGES, html_language, translated
from portal.web.library_texts import LIBRARY_TEXTS
from tests.authenticator import SET_UP, give_code, give_password, set_up
from tests.mail_servers.test_account_email import link_in, received, request_reset, use_server
from tests.pages import PASSWORD, post
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

EMAIL = "admin@acme.example"
NOT_SHOWN = {"Forgot password?", "authenticator"}  # the portal's templates do not use them
GERMAN = {"Accept-Language": "pl, de-AT;q=0.8, en;q=0.5"}
TITLES = {"en": "Sign in", "de": "Anmelden", "es": "Iniciar sesión", "fr": "Se connecter", "zh": "登录"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_are_in_the_browsers_language(client: FlaskClient, language: str) -> None:
    page = client.get("/sign-in", headers={"Accept-Language": language}).get_data(as_text=True)
    assert f'<html lang="{html_language(language)}">' in page
    assert f"<h1>{TITLES[language]}</h1>" in page
    assert ("Password" in page) == (language == "en")  # the label is Flask-Security's


def test_chinese_pages_and_emails_name_the_script(client: FlaskClient) -> None:
    assert '<html lang="zh-Hans">' in client.get("/sign-in", headers={"Accept-Language": "zh-CN"}).text
    event_type = EVENT_TYPES["queue.call_lost"]
    own = compile_html("Subject", "<p>Text</p>", "zh")
    for template in (default_template(event_type, "zh"), own):
        assert '<html lang="zh-Hans"' in template.render({}).html


@pytest.mark.parametrize("accepted", ["", "pl", "*;q=nonsense", "en-US", "x" * 9_000])
def test_otherwise_pages_are_in_english(client: FlaskClient, accepted: str) -> None:
    page = client.get("/sign-in", headers={"Accept-Language": accepted}).get_data(as_text=True)
    assert '<html lang="en">' in page
    assert "<h1>Sign in</h1>" in page


def test_a_regional_variant_is_the_language(client: FlaskClient) -> None:
    for accepted, language in (("zh-CN", "zh"), ("de-AT", "de"), ("fr-CA, en;q=0.1", "fr")):
        page = client.get("/sign-in", headers={"Accept-Language": accepted}).get_data(as_text=True)
        assert f'<html lang="{html_language(language)}">' in page


def test_the_accounts_language_overrides_the_browsers(app: Flask, admin: FlaskClient) -> None:
    answer = post(admin, "/account", "/account/language", language="fr")
    assert (answer.status_code, answer.location) == (303, "/account")
    page = admin.get("/account", headers=GERMAN).get_data(as_text=True)
    assert '<html lang="fr">' in page
    assert translated("fr", "The language has been saved.") in page
    assert '<option value="fr" lang="fr" selected>Français</option>' in page
    post(admin, "/account", "/account/language", language="")
    assert '<html lang="de">' in admin.get("/account", headers=GERMAN).get_data(as_text=True)
    with app.app_context():
        rows = sql("SELECT changes FROM audit_entries WHERE action = 'account.changed' ORDER BY id")
    assert [changes for (changes,) in rows] == [{"language": [None, "fr"]}, {"language": ["fr", None]}]


def test_other_languages_are_rejected(admin: FlaskClient) -> None:
    assert post(admin, "/account", "/account/language", language="xx").status_code == 400


def test_a_wrong_password_is_reported_in_the_language(client: FlaskClient) -> None:
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    answer = post(client, "/sign-in", email="nobody@acme.example", password="wrong")
    assert translated("de", "The email address or the password is incorrect.") in answer.get_data(as_text=True)


def test_times_are_in_the_language(admin: FlaskClient) -> None:
    post(admin, "/account", "/account/language", language="de")
    assert "Sekunde" in admin.get("/account").get_data(as_text=True)


def test_errors_are_in_the_language(client: FlaskClient, admin: FlaskClient) -> None:
    page = client.get("/nothing-is-here", headers=GERMAN).get_data(as_text=True)
    assert '<html lang="de">' in page
    assert f"<h1>{translated('de', 'Page not found')}</h1>" in page


def test_clients_are_answered_in_english(client: FlaskClient) -> None:
    answer = client.get("/api/v1/nothing", headers=GERMAN)
    assert answer.json is not None
    assert answer.json["detail"].startswith("The address may be wrong")


def test_the_overridden_texts_exist_in_the_libraries() -> None:
    texts: set[str] = set()
    for module, path in ((flask_security, "translations/flask_security.pot"), (wtforms, "locale/wtforms.pot")):
        with open(f"{module.__path__[0]}/{path}", "rb") as file:  # noqa: PTH123
            for message in read_po(file):
                texts.update([message.id] if isinstance(message.id, str) else message.id)
    assert set(LIBRARY_TEXTS) <= texts


def test_every_text_of_flask_security_is_overridden(
    app: Flask, client: FlaskClient, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown: set[str] = set()

    class Recording(dict[str, str]):
        def get(self, text: str, default: Any = None) -> Any:
            if text not in self:
                unknown.add(text)
            return super().get(text, default)

    monkeypatch.setattr(library_texts, "LIBRARY_TEXTS", Recording(LIBRARY_TEXTS))
    for browser, path in ((client, "/sign-in"), (client, "/forgotten-password"), (admin, "/account/confirm")):
        post(browser, path)
        post(browser, path, email="nobody", password="wrong")
    client.get("/account", follow_redirects=True)
    client.get("/forgotten-password/invalid", follow_redirects=True)
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        request_reset(client)
        link = link_in(received(peer), "plain")
    new = "an even longer password"
    for password, repeated in (("", ""), (new, "another one")):
        post(client, link, password=password, password_confirm=repeated)
    for new_password in ("", PASSWORD):
        values = {"new_password": new_password, "new_password_confirm": new_password}
        post(admin, "/account/password", None, password=PASSWORD, htmx=False, **values)
    set_up(admin)
    give_password(client, EMAIL)
    give_code(client, "000000")
    post(client, "/sign-in/recovery-code", code="0")
    post(client, link, password=new, password_confirm=new)
    assert admin.get(SET_UP).status_code in {200, 302}
    assert unknown - NOT_SHOWN == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_account_emails_are_in_the_accounts_language(app: Flask, language: str) -> None:
    link = "https://portal.test/link"
    names: dict[str, Any] = {"who": "Ann <b> (ann@acme.example)", "tenant": "Acme & Co", "old": EMAIL, "new": EMAIL}
    with app.test_request_context(headers={"Accept-Language": "fr"}):
        account = account_service.add(EMAIL, PASSWORD)
        assert isinstance(account, Account)
        account_service.set_language(account, language)
        for key, message in emails.MESSAGES.items():
            subject, text, html = emails.render(key, account, link=link, valid_for=timedelta(days=7), **names)
            assert subject == translated(language, message.subject, product=PRODUCT)
            assert f'<html lang="{html_language(language)}">' in html
            assert link in text
            assert f'href="{link}"' in html
            assert translated(language, message.link_text) in text
            assert EMAIL in text or ".system_administrator" in key
            assert "%(" not in text
            assert "Ann <b>" not in html


def test_account_emails_use_the_browsers_language_otherwise(app: Flask) -> None:
    with app.test_request_context(headers={"Accept-Language": "es"}):
        account = account_service.add(EMAIL, PASSWORD)
        assert isinstance(account, Account)
        assert '<html lang="es">' in emails.render(emails.PASSWORD_CHANGED, account)[2]
