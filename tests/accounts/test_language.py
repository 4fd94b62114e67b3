"""In which language pages are read: the account's, else the browser's, else English."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.languages import LANGUAGES
from tests.pages import post
from tests.sql import sql

GERMAN = {"Accept-Language": "pl, de-AT;q=0.8, en;q=0.5"}
TITLES = {"en": "Sign in", "de": "Anmelden", "es": "Iniciar sesión", "fr": "Se connecter", "zh": "登录"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_stranger_is_addressed_as_the_browser_asks(client: FlaskClient, language: str) -> None:
    page = client.get("/sign-in", headers={"Accept-Language": language}).get_data(as_text=True)
    assert f'<html lang="{language}">' in page
    assert f"<h1>{TITLES[language]}</h1>" in page
    assert ("Password" in page) == (language == "en")  # the label is Flask-Security's


@pytest.mark.parametrize("asked", ["", "pl", "*;q=nonsense", "en-US", "x" * 9_000])
def test_otherwise_in_english(client: FlaskClient, asked: str) -> None:
    page = client.get("/sign-in", headers={"Accept-Language": asked}).get_data(as_text=True)
    assert '<html lang="en">' in page
    assert "<h1>Sign in</h1>" in page


def test_a_relative_of_a_language_is_that_language(client: FlaskClient) -> None:
    for asked, language in (("zh-CN", "zh"), ("de-AT", "de"), ("fr-CA, en;q=0.1", "fr")):
        page = client.get("/sign-in", headers={"Accept-Language": asked}).get_data(as_text=True)
        assert f'<html lang="{language}">' in page


def test_an_accounts_choice_goes_before_the_browsers(app: Flask, admin: FlaskClient) -> None:
    answer = post(admin, "/account", "/account/language", locale="fr")
    assert (answer.status_code, answer.location) == (303, "/account")
    page = admin.get("/account", headers=GERMAN).get_data(as_text=True)
    assert '<html lang="fr">' in page
    assert "La langue est enregistrée." in page
    assert '<option value="fr" lang="fr" selected>Français</option>' in page
    post(admin, "/account", "/account/language", locale="")
    assert '<html lang="de">' in admin.get("/account", headers=GERMAN).get_data(as_text=True)
    with app.app_context():
        told = sql("SELECT changes FROM audit_entries WHERE action = 'account.changed' ORDER BY id")
    assert [row[0] for row in told] == [{"locale": [None, "fr"]}, {"locale": ["fr", None]}]


def test_there_is_no_other_choice(admin: FlaskClient) -> None:
    assert post(admin, "/account", "/account/language", locale="xx").status_code == 400


def test_wrong_passwords_are_told_in_it(client: FlaskClient) -> None:
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    answer = post(client, "/sign-in", email="nobody@acme.example", password="wrong")
    assert "Die E-Mail-Adresse oder das Passwort stimmt nicht." in answer.get_data(as_text=True)


def test_times_are_in_it(admin: FlaskClient) -> None:
    post(admin, "/account", "/account/language", locale="de")
    assert "Sekunde" in admin.get("/account").get_data(as_text=True)


def test_an_error_is_told_in_it(client: FlaskClient, admin: FlaskClient) -> None:
    page = client.get("/nothing-is-here", headers=GERMAN).get_data(as_text=True)
    assert "<h1>Hier ist nichts</h1>" in page


def test_programs_are_told_in_english(client: FlaskClient) -> None:
    answer = client.get("/api/v1/nothing", headers=GERMAN)
    assert answer.json is not None
    assert answer.json["detail"].startswith("The address may be mistyped")
