"""A tenant's pages of its templates, with and without HTMX."""

from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.events.types import EVENT_TYPES
from portal.mail_templates.models import MAX_BODY_LENGTH, MAX_MARKDOWN_LENGTH, MAX_SUBJECT_LENGTH
from tests.pages import post, read_form
from tests.sql import sql

LIST = "/tenants/acme.example/templates"
PAGE = f"{LIST}/queue.call_lost"
WORDS: dict[str, Any] = {"subject": "Ring %%CALLER_NUMBER%%", "body": "Now.", "format": "markdown"}


def text_of(browser: FlaskClient, path: str) -> str:
    return unescape(browser.get(path).text)


def test_the_list_shows_each_event_type_with_a_sample_subject(admin: FlaskClient, acme: str) -> None:
    html = text_of(admin, LIST)
    for event_type in EVENT_TYPES.values():
        assert event_type.label in html
        assert f'href="{LIST}/{event_type.type}"' in html
    assert "Call lost in queue Support: +442079460123" in html
    assert "%%" not in html
    post(admin, PAGE, **WORDS)
    assert "Ring +442079460123" in text_of(admin, LIST)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_each_notification_links_to_its_template(admin: FlaskClient, acme: str, event_type: str) -> None:
    assert f'href="{LIST}/{event_type}"' in admin.get("/tenants/acme.example/notifications").text
    assert admin.get(f"{LIST}/{event_type}").status_code == 200


def test_saving_redirects_to_the_page(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, PAGE, **WORDS)
    assert (answer.status_code, answer.location) == (303, PAGE)
    assert 'value="Ring %%CALLER_NUMBER%%"' in text_of(admin, PAGE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": ""}, "Enter a subject."),
        ({"subject": "x" * (MAX_SUBJECT_LENGTH + 1)}, "Enter at most 200 characters."),
        ({"subject": "a\r\nb"}, "Control characters are not allowed here."),
        ({"body": ""}, "Enter a body."),
        ({"body": "a\x00b"}, "Control characters are not allowed here."),
        ({"body": "é" * (MAX_MARKDOWN_LENGTH // 2 + 1)}, "use at most 20 kB"),
        ({"body": "é" * (MAX_BODY_LENGTH // 2 + 1), "format": "html"}, "use at most 100 kB"),
        ({"body": "*" * 800 + "a" + "*" * 800}, "too complex"),
        ({"body": "*a **a " * 357 + "b" + " a** a*" * 357}, "too complex"),
        ({"body": f"<style>p{{width:{'(' * 2400}1{')' * 2400}}}</style>", "format": "html"}, "too complex"),
        ({"body": f"<style>{'@media x{' * 440}</style>", "format": "html"}, "too complex"),
        ({"body": "".join(f"<b id={n}>" for n in range(400)) + "<p>x" * 1000, "format": "html"}, "too complex"),
        ({"format": "docx"}, "Choose one of the options."),
        ({"body": "<p class='%%REASON%%'>", "format": "html"}, "is in the attribute “class”"),
    ],
)
def test_errors_are_shown(admin: FlaskClient, acme: str, changes: dict[str, Any], words: str) -> None:
    answer = post(admin, PAGE, **WORDS | changes)
    assert answer.status_code == 422
    assert words in unescape(answer.text)
    assert "Versions" not in text_of(admin, PAGE)
    assert words in unescape(post(admin, PAGE, f"{PAGE}/preview", htmx=True, **WORDS | changes).text)


def test_unknown_placeholders_are_saved_only_after_the_author_was_told(admin: FlaskClient, acme: str) -> None:
    asked = post(admin, PAGE, **WORDS | {"body": "%%CALER_NAME%% %%ZZZ%%"})
    assert asked.status_code == 422
    beside_save = unescape(asked.text).partition("callout warn error-summary")[2].partition(">Save</button>")[0]
    assert "%%CALER_NAME%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?" in beside_save
    assert "save again to keep them" in beside_save
    assert "Versions" not in text_of(admin, PAGE)
    shown = read_form(asked.text, "template")
    other = admin.post(PAGE, data=shown | {"body": "%%CALER_NAME%% %%YYY%%"})
    assert other.status_code == 422, "another one is asked about"
    assert admin.post(PAGE, data=shown).status_code == 303
    assert "%%CALER_NAME%% is unknown" in text_of(admin, PAGE), "a saved one is still named"


def test_a_placeholder_is_not_confirmed_by_an_error_about_something_else(admin: FlaskClient, acme: str) -> None:
    wrong = {"body": "<a href='%%REASON%%'>%%ZZZ%%</a>", "format": "html"}
    answer = post(admin, PAGE, **WORDS | wrong)
    assert 'id="body-error"' in answer.text
    shown = read_form(answer.text, "template")
    assert admin.post(PAGE, data=shown | {"body": "%%ZZZ%%"}).status_code == 422


def test_line_ends_are_normalised(admin: FlaskClient, acme: str) -> None:
    for line_end in ("\r\n", "\n"):
        version = admin.get(PAGE).text.partition('name="based_on" value="')[2].partition('"')[0]
        assert post(admin, PAGE, **WORDS | {"body": f"a{line_end}b", "based_on": version}).status_code == 303
    assert text_of(admin, PAGE).count(">In use<") == text_of(admin, PAGE).count("by admin@acme.example") == 1


def test_htmx_gets_only_the_preview(admin: FlaskClient, acme: str) -> None:
    html = post(admin, PAGE, f"{PAGE}/preview", htmx=True, **WORDS | {"subject": "<b> %%CALLER_NAME%%"}).text
    assert html.lstrip().startswith('<div id="preview">')
    assert "&lt;b&gt; <mark>Ana Kovač</mark>" in html
    assert 'formtarget="preview" data-press' in html


def test_the_frame_has_the_email_of_the_editor_or_of_a_version(admin: FlaskClient, acme: str) -> None:
    assert "Call lost in queue" in admin.get(f"{PAGE}/preview/html").text
    post(admin, PAGE, **WORDS)
    assert "Now." in admin.get(f"{PAGE}/preview/html").text
    assert "Call lost in queue" in admin.get(f"{PAGE}/preview/html?version=default").text
    assert "Unsaved." in post(admin, PAGE, f"{PAGE}/preview/html", **WORDS | {"body": "Unsaved."}).text
    refused = post(admin, PAGE, f"{PAGE}/preview/html", **WORDS | {"body": ""})
    assert (refused.status_code, refused.text) == (422, "")


@pytest.mark.parametrize("version", ["nonsense", "00000000-0000-0000-0000-000000000001", "default%00"])
def test_unknown_versions(admin: FlaskClient, acme: str, version: str) -> None:
    assert admin.get(f"{PAGE}?version={version}").status_code == 404
    assert admin.get(f"{PAGE}/preview/html?version={version}").status_code == 404


def test_unknown_event_types(admin: FlaskClient, acme: str) -> None:
    for path in ("/queue.digest", "/nonsense", "/nonsense/preview/html"):
        assert admin.get(LIST + path).status_code == 404


def test_an_invalid_base_version_is_a_conflict(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, PAGE, **WORDS | {"based_on": "nonsense"})
    assert answer.status_code == 422
    assert "Your changes are still here but not saved." in answer.text


def test_without_a_mail_server_no_sample_is_sent(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, PAGE, f"{PAGE}/sample", htmx=True, **WORDS)
    assert "Set up a mail server first." in answer.text
    assert 'id="test-email"' in answer.text


def test_the_default_is_in_the_language_of_the_emails(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        sql("UPDATE tenants SET language = 'de'")
    page = admin.get(PAGE).text
    assert "Anruf verloren in Warteschlange %%QUEUE_NAME%%" in page
    assert "Call lost in queue" not in page
    assert "Anruf verloren in Warteschlange" in admin.get(f"{PAGE}/preview/html").text
