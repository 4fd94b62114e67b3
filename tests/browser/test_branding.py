"""Branding: the preview follows the form before it is saved."""

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable

PAGE = "/tenants/acme.example/appearance"


def test_the_preview_follows_the_form(sign_in: OpenPage, acme: str) -> None:
    page = sign_in("admin@acme.example", PAGE, administers=acme)
    mail = page.frame_locator("iframe")
    expect(mail.get_by_role("heading", name="Call lost in queue Support")).to_be_visible()
    top = page.locator("#preview").bounding_box()
    page.get_by_label("Language").select_option("Deutsch")
    expect(mail.get_by_role("heading", name="Anruf verloren in Warteschlange Support")).to_be_visible()
    assert page.locator("#preview").bounding_box() == top
    page.get_by_label("Footer").fill("Zentrale: 100")
    expect(mail.get_by_text("Zentrale: 100")).to_be_visible()
    page.get_by_label("Colour", exact=True).fill("#FFD400")
    expect(page.get_by_label("Pick a colour")).to_have_value("#ffd400")
    expect(mail.locator(".card")).to_have_css("border-top-color", "rgb(255, 212, 0)")
    page.get_by_label("Pick a colour").fill("#0a7d4f")
    expect(page.get_by_label("Colour", exact=True)).to_have_value("#0a7d4f")
    expect(mail.locator(".tenant-name")).to_have_css("color", "rgb(10, 125, 79)")
    page.get_by_role("button", name="Use the default").click()
    expect(page.get_by_label("Colour", exact=True)).to_have_value("#3846c4")
    expect(mail.locator(".card")).to_have_css("border-top-color", "rgb(56, 70, 196)")
    page.get_by_label("Email to preview").select_option("A new user was created")
    expect(mail.get_by_role("link", name="In Linphone öffnen")).to_be_visible()
    assert_usable(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The appearance is saved.")).to_be_visible()
    expect(page.get_by_label("Footer")).to_have_value("Zentrale: 100")


def test_errors_are_shown_at_their_fields(sign_in: OpenPage, acme: str) -> None:
    page = sign_in("admin@acme.example", PAGE, administers=acme)
    page.get_by_label("Colour", exact=True).fill("reddish")
    page.get_by_label("Footer").fill("%%QUEUE_NAME%%")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Colour", exact=True)).to_be_focused()
    expect(page.get_by_text("You cannot use %%QUEUE_NAME%% in the footer")).to_be_visible()
    assert_usable(page)
