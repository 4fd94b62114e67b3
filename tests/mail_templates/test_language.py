"""The pages in the reader's language, with values and numbers in whole sentences."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.pages import post

TENANT = "/tenants/acme.example"


@pytest.fixture
def german(admin: FlaskClient) -> FlaskClient:
    """The browser of an administrator who reads German."""
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    return admin


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("recipients", "Noch keine Empfänger"),
        ("notifications", "Wählen Sie die Ereignisse, zu denen E-Mails gesendet werden."),
        ("templates", "Der Text Ihrer E-Mails."),
        ("templates/queue.call_lost", "Ein Anruf in einer Warteschlange ging verloren · Vorlagen"),
        ("templates/queue.call_lost", "Der Name der Warteschlange, sonst ihre Nummer"),
    ],
)
def test_pages_are_translated(german: FlaskClient, acme: str, page: str, words: str) -> None:
    assert words in german.get(f"{TENANT}/{page}").text


def test_a_translated_sentence_keeps_its_controls(german: FlaskClient, acme: str) -> None:
    page = german.get(f"{TENANT}/notifications").text
    sentence = page.partition('<p class="sentence">')[2].partition("</p>")[0]
    assert sentence.index("Nach ") < sentence.index('name="limit"') < sentence.index(" E-Mails in ")
    assert "<span>weitere zurückhalten und eine Sammel-E-Mail senden.</span>" in sentence


def test_numbers_are_formatted_for_the_reader(german: FlaskClient, acme: str) -> None:
    page = f"{TENANT}/notifications"
    answer = post(german, page, f"{page}/storm-limits", limit="0", minutes="5").get_data(as_text=True)
    assert "Geben Sie eine Anzahl von E-Mails zwischen 1 und 1.000 ein." in answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": "x" * 201}, "Geben Sie höchstens 200 Zeichen ein."),
        ({"subject": "%%QR_CODE%%"}, "%%QR_CODE%% ist ein Bild, das ein Betreff nicht enthalten kann."),
        ({"body": "%%NAME%%"}, "%%NAME%% ist unbekannt und bleibt leer."),
    ],
)
def test_errors_of_a_template_are_translated(
    german: FlaskClient, acme: str, changes: dict[str, Any], words: str
) -> None:
    page = f"{TENANT}/templates/queue.call_lost"
    values: dict[str, Any] = {"subject": "Anruf", "body": "Jetzt.", "format": "markdown"} | changes
    assert words in post(german, page, f"{page}/preview", **values).get_data(as_text=True)


def test_errors_of_an_email_address_are_translated(german: FlaskClient, acme: str) -> None:
    answer = post(german, f"{TENANT}/recipients", email="nobody").get_data(as_text=True)
    assert "„nobody“ ist keine E-Mail-Adresse." in answer
