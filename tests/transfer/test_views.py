"""The pages that import tenants, export one, and delete one."""

import base64
import html
import json
import random
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.tenants import service as tenant_service
from portal.transfer import deletion, forms, tenant_document
from tests.conftest import make_sealing_cheap
from tests.mail_servers.test_account_email import use_server
from tests.pages import post
from tests.people.example_people import tenant_with
from tests.sql import sql
from tests.transfer.test_csv_import import FILE

PAGE = "/system/tenants/import"
PASSPHRASE = "four words are enough"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_sealing_cheap(monkeypatch)


def preview_of(browser: FlaskClient, content: str) -> TestResponse:
    """Paste the content of a file and press "Preview"."""
    return post(browser, PAGE, text=content)


def confirm(browser: FlaskClient, preview: TestResponse, **values: str) -> TestResponse:
    """Press "Import" below a preview."""
    hidden = dict(re.findall(r'name="(csrf_token|content|version)"[^>]*value="([^"]*)"', preview.text))
    return browser.post(f"{PAGE}/confirm", data={**hidden, **values})


def text(response: TestResponse) -> str:
    """Return the words of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def test_a_file_is_previewed_and_then_imported(app: Flask, system: FlaskClient, acme: str) -> None:
    preview = preview_of(system, FILE)
    words = text(preview)
    assert preview.status_code == 200
    for expected in (
        "New tenants 1 Changed tenants 1 Unchanged tenants 0",
        "Invitations by email 4 They are sent once the mail server works: the system has no mail server.",
        "Acme Ltd acme.example Changed Name: Acme → Acme Ltd Language: en → de",
        "Invited: ann@acme.example, bob@acme.example New recipients: ops@acme.example, night@acme.example",
    ):
        assert expected in words, words
    with app.app_context():
        assert tenant_service.find("initech.example") is None
    use_server(app, 2525)
    assert "once the mail server works" not in text(preview_of(system, FILE))
    done = confirm(system, preview)
    assert (done.status_code, done.location) == (303, "/system/tenants")
    listed = text(system.get(done.location))
    assert "Imported. Tenants added: 1, changed: 1." in listed
    assert "4 invitations will be emailed." in listed
    assert "there is nothing to import" in text(preview_of(system, FILE))
    with app.app_context():
        assert {row[0] for row in sql("SELECT invited_by FROM invitations")} == {"root@pbx.example"}


def test_bad_lines_are_shown_and_cannot_be_imported(app: Flask, system: FlaskClient, acme: str) -> None:
    preview = preview_of(system, FILE + "umbrella.example;;;;;;\n<b>;x;;;;;\n")
    assert preview.status_code == 422
    assert "2 lines are wrong, so nothing can be imported: Line 6: Name: Enter the tenant's name." in text(preview)
    assert "<b>" not in preview.text
    assert "/confirm" not in preview.text


def test_a_preview_is_not_trusted(app: Flask, system: FlaskClient, acme: str) -> None:
    preview = preview_of(system, FILE)
    with app.app_context():
        sql("UPDATE tenants SET name = 'Renamed'")
    again = confirm(system, preview)
    assert again.status_code == 422
    assert "Tenants have changed since the preview. Nothing was imported." in text(again)
    assert "Renamed → Acme Ltd" in text(again)
    with app.app_context():
        assert tenant_service.find("initech.example") is None
    assert confirm(system, again).status_code == 303


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "The file is empty."),
        *((content, "Start again with the content of the file.") for content in ("AAAA", "é", "A" * 400_000)),
    ],
)
def test_a_confirmation_with_another_content_imports_nothing(
    system: FlaskClient, acme: str, content: str, expected: str
) -> None:
    answer = confirm(system, preview_of(system, FILE), content=content)
    assert answer.status_code == 422
    assert expected in text(answer)


def test_a_small_field_that_unpacks_to_a_huge_file_is_refused(system: FlaskClient, acme: str) -> None:
    preview = preview_of(system, FILE)
    for huge in (b"domain\n" + b" " * 200_000_000, b"{" + b" " * 200_000_000):
        answer = confirm(system, preview, content=forms.pack(huge))
        assert answer.status_code == 422


def test_what_cannot_be_read(system: FlaskClient, acme: str) -> None:
    for content, expected in {
        "": "Paste the content of a file, or choose one.",
        " \n ": "Paste the content of a file, or choose one.",
        "a,b\n": "“domain” is required",
        "{}": "not the export of a tenant",
        "domain\n" + "a" * 400_000: "The file is too large",
        "domain\n" + base64.b64encode(random.Random(1).randbytes(600_000)).decode(): "Use the command",
    }.items():
        answer = preview_of(system, content)
        assert answer.status_code == 422
        assert expected in text(answer)


def test_rows_that_were_copied_from_a_spreadsheet(system: FlaskClient, acme: str) -> None:
    assert "New tenants 1" in text(preview_of(system, "SIP domain\tName\r\nhooli.example\tHooli, Inc\r\n"))


def test_one_tenant_is_exported_deleted_and_imported(app: Flask, system: FlaskClient, acme: str) -> None:
    export = f"/system/tenants/{acme}/export"
    bad = post(system, export, secrets="encrypted", passphrase="short", repeated="other")
    assert bad.status_code == 422
    assert "A passphrase needs at least 12 characters." in text(bad)
    assert "The two passphrases are not the same." in text(bad)
    file = post(system, export, secrets="encrypted", passphrase=PASSPHRASE, repeated=PASSPHRASE)
    assert file.headers["Content-Disposition"] == "attachment; filename=acme.example.json"
    assert file.cache_control.no_store
    taken = preview_of(system, file.text)
    assert "There is a tenant with the SIP domain acme.example already." in text(taken)
    delete = f"/system/tenants/{acme}/delete"
    assert "Enter the name exactly: Acme" in text(post(system, delete, name="acme"))
    deleted = post(system, delete, name=" Acme ")
    assert deleted.status_code == 303
    assert "Acme is being deleted, with 0 events and 0 emails." in text(system.get(deleted.location))
    edit = system.get(f"/system/tenants/{acme}")
    assert "Being deleted" in text(edit)
    assert "/resume" not in edit.text
    assert system.get(delete).status_code == 303
    with app.app_context():
        deletion.continue_all()
    preview = preview_of(system, file.text)
    assert "Import Acme?" in text(preview)
    wrong = confirm(system, preview, passphrase="four other words")
    assert (wrong.status_code, "The passphrase is wrong" in text(wrong)) == (422, True)
    done = confirm(system, wrong, passphrase=PASSPHRASE)
    assert (done.status_code, done.location) == (303, f"/system/tenants/{acme}/next-steps")
    assert "Acme has been imported." in text(system.get(done.location))
    with app.app_context():
        assert tenant_with(acme).time_zone == "Europe/Berlin"


def test_secrets_can_be_left_out(system: FlaskClient, acme: str) -> None:
    file = post(system, f"/system/tenants/{acme}/export", secrets="left_out")
    assert json.loads(file.data)["secrets"] is None
    found = tenant_document.read(file.data)
    assert isinstance(found, tenant_document.Document)


def test_who_becomes_an_administrator_is_seen_before(system: FlaskClient, acme: str) -> None:
    content = json.loads(post(system, f"/system/tenants/{acme}/export", secrets="left_out").data)
    content["tenant"]["domain"] = "new.example"
    people = {"eve@evil.example": "administrator", "ann@acme.example": "administrator", "vera@acme.example": "viewer"}
    content["people"] = [{"email": email, "role": role} for email, role in people.items()]
    expected = "Administrators eve@evil.example, ann@acme.example Invitations by email 3"
    assert expected in text(preview_of(system, json.dumps(content)))


def test_a_resumed_tenant_that_is_being_deleted_stays_suspended(app: Flask, system: FlaskClient, acme: str) -> None:
    post(system, f"/system/tenants/{acme}/delete", name="Acme")
    answer = post(system, "/system/tenants/new", f"/system/tenants/{acme}/resume")
    assert "Acme is being deleted." in text(system.get(answer.location))
    with app.app_context():
        assert tenant_with(acme).is_suspended


@pytest.mark.parametrize("action", ["export", "delete"])
def test_who_finds_a_signed_in_browser_can_neither_export_nor_delete(
    system: FlaskClient, admin: FlaskClient, acme: str, action: str
) -> None:
    page = f"/system/tenants/{acme}/{action}"
    for browser in (system, admin):
        with browser.session_transaction() as session:
            session["fs_paa"] = 0  # the password was confirmed long ago
    asked = system.get(page)
    assert (asked.status_code, asked.location.partition("?")[0]) == (303, "/account/confirm")
    answer = post(system, "/system/tenants/new", page, secrets="left_out", name="Acme")
    assert answer.location.startswith("/account/confirm")
    assert admin.get(page).status_code == 404
