"""The pages of notifications in the language of their reader: whole sentences, with values and numbers in them."""

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
        ("recipients", "Noch erhält niemand E-Mails"),
        ("notifications", "Wählen Sie die Ereignisse, die E-Mails senden."),
        ("templates", "Was in Ihren E-Mails steht."),
        ("templates/queue.call_lost", "Anruf verloren · Vorlagen"),
        ("templates/queue.call_lost", "Der Name der Warteschlange, sonst ihre Nummer"),
    ],
)
def test_a_page_is_in_it(german: FlaskClient, acme: str, page: str, words: str) -> None:
    assert words in german.get(f"{TENANT}/{page}").text


def test_a_sentence_keeps_its_controls(german: FlaskClient, acme: str) -> None:
    page = german.get(f"{TENANT}/notifications").text
    sentence = page.partition('<p class="sentence">')[2].partition("</p>")[0]
    assert sentence.index("Nach ") < sentence.index('name="limit"') < sentence.index(" E-Mails in ")
    assert "<span>weitere zurückhalten und eine Sammelmail senden.</span>" in sentence


def test_a_number_is_written_as_its_reader_writes_it(german: FlaskClient, acme: str) -> None:
    page = f"{TENANT}/notifications"
    answer = post(german, page, f"{page}/storm", limit="0", minutes="5").get_data(as_text=True)
    assert "Geben Sie eine Anzahl von E-Mails zwischen 1 und 1.000 ein." in answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": "x" * 201}, "Verwenden Sie höchstens 200 Zeichen."),
        ({"subject": "%%QR_CODE%%"}, "%%QR_CODE%% ist ein Bild, das kein Betreff zeigen kann."),
        ({"body": "%%NAME%%"}, "%%NAME%% ist unbekannt und bleibt leer."),
    ],
)
def test_what_is_wrong_with_a_template_is_told_in_it(
    german: FlaskClient, acme: str, changes: dict[str, Any], words: str
) -> None:
    page = f"{TENANT}/templates/queue.call_lost"
    values: dict[str, Any] = {"subject": "Anruf", "body": "Jetzt.", "format": "markdown"} | changes
    assert words in post(german, page, f"{page}/preview", **values).get_data(as_text=True)


def test_an_address_that_is_none_is_told_in_it(german: FlaskClient, acme: str) -> None:
    answer = post(german, f"{TENANT}/recipients", address="nobody").get_data(as_text=True)
    assert "„nobody“ ist keine E-Mail-Adresse." in answer
