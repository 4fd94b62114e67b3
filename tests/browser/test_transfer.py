"""A system administrator imports tenants from a file, exports one and deletes it."""

from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Page, expect

from portal.tenants import service as tenant_service
from portal.transfer import deletion
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.conftest import make_sealing_cheap

CSV = """Domain;Name;Time zone;Administrators;Recipients
muller.example;Müller & Söhne;Europe/Berlin;ann@muller.example;ops@muller.example
acme.example;Acme Limited;;;ops@acme.example
"""


def press(page: Page, name: str) -> None:
    """Press a button."""
    page.get_by_role("button", name=name, exact=True).click()


def test_tenants_come_from_a_file_and_one_goes(
    sign_in: OpenPage, app: Flask, acme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sealing_cheap(monkeypatch)
    file = tmp_path / "tenants.csv"
    file.write_bytes(CSV.encode("latin-1"))
    page = sign_in("root@pbx.example", "/system/tenants", system=True)
    page.get_by_role("link", name="Import").click()
    with page.expect_file_chooser() as chooser:
        press(page, "Choose a file…")
    chooser.value.set_files(file)
    expect(page.get_by_label("Content of the file")).to_have_value(CSV)
    press(page, "Preview")
    expect(page.get_by_text("Müller & Söhne")).to_be_visible()
    assert_usable(page)
    press(page, "Import")
    expect(page.get_by_text("Imported. Tenants added: 1, changed: 1.")).to_be_visible()

    page.goto("/system/tenants/import")
    page.get_by_label("Content of the file").fill("domain\tname\nnew.example\n\tNobody\n")
    press(page, "Preview")
    expect(page.get_by_text("Line 2: Name: Enter the tenant's name.")).to_be_visible()
    assert_usable(page)

    page.goto("/system/tenants/muller.example")
    page.get_by_role("link", name="Export…").click()
    page.get_by_label("Passphrase", exact=True).fill("four words are enough")
    page.get_by_label("Repeat the passphrase").fill("four words are enough")
    with page.expect_download() as download:
        press(page, "Download")
    exported = tmp_path / "muller.json"
    download.value.save_as(exported)
    page.goto("/system/tenants/muller.example/delete")
    page.get_by_label("Name of the tenant").fill("Müller & Söhne")
    press(page, "Delete")
    expect(page.get_by_text("Müller & Söhne is being deleted")).to_be_visible()
    page.goto("/system/tenants/muller.example")
    expect(page.get_by_text("Being deleted")).to_be_visible()
    assert_usable(page)
    with app.app_context():
        deletion.continue_all()
        assert tenant_service.find("muller.example") is None

    page.goto("/system/tenants/import")
    page.get_by_label("Content of the file").fill(exported.read_text())
    press(page, "Preview")
    expect(page.get_by_role("heading", name="Import Müller & Söhne?")).to_be_visible()
    assert_usable(page)
    page.get_by_label("Passphrase").fill("four words are enough")
    press(page, "Import")
    expect(page.get_by_text("Müller & Söhne has been imported.")).to_be_visible()
