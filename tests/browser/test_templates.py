"""Journeys through the templates: writing one beside its preview, and going back to what was."""

import re

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests.browser.conftest import OpenPage, assert_usable
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer

PAGE = "/tenants/acme.example/templates/queue.call_lost"
WELCOME = "/tenants/acme.example/templates/user.created"
OWN = """<table width="100%" bgcolor="#003366"><tr><td style="color:#fff">Acme</td></tr></table>
<p>Hello %%DISPLAY_NAME%%: %%EXTENSION_PASSWORD%%</p><script>document.title = "taken"</script>%%QR_CODE%%"""


@pytest.fixture
def page(sign_in: OpenPage, ready: str) -> Page:
    """The page of Acme's notifications, in the browser of its administrator."""
    page = sign_in("admin@acme.example", administers=ready)
    page.goto("/tenants/acme.example/notifications")
    return page


def mail(page: Page) -> FrameLocator:
    """The preview's mail."""
    return page.frame_locator("iframe[name=mail]")


def write(page: Page, label: str, words: str) -> None:
    """Write into a field, and wait for what the portal makes of it."""
    with page.expect_response(re.compile(r"/preview/html$")):
        page.get_by_label(label).fill(words)


def test_a_subject_is_changed_seen_sent_and_taken_back(page: Page, peer: SmtpPeer) -> None:
    page.get_by_role("link", name="Template of Call lost").click()
    expect(page.locator(".envelope mark").first).to_have_text("Support")
    expect(mail(page).get_by_role("heading")).to_have_text("Call lost in queue Support")
    write(page, "Subject", "Ring %%CALLER_NUMBER%% now")
    expect(page.locator(".envelope dd")).to_have_text("Ring +442079460123 now")
    expect(page.get_by_label("Subject")).to_be_focused()
    page.get_by_role("button", name="Send a sample to myself").click()
    expect(page.get_by_text("took the sample for admin@acme.example")).to_be_visible()
    assert b"Subject: [Sample] Ring +442079460123 now" in peer.mails[0].content
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The template is saved.")).to_be_visible()
    page.get_by_role("link", name="All templates").click()
    expect(page.get_by_role("row", name="Call lost")).to_contain_text("Ring +442079460123 now")
    expect(page.get_by_role("row", name="Call lost")).to_contain_text("by admin@acme.example")
    page.get_by_role("link", name="Call lost").click()
    page.get_by_role("button", name="Restore the default").click()
    expect(page.get_by_label("Subject")).to_have_value("Call lost in queue %%QUEUE_NAME%%: %%CALLER_NUMBER%%")
    page.get_by_role("row", name="Ring").get_by_role("link", name="Look").click()
    expect(page.get_by_text("This is a version that is not in use.")).to_be_visible()
    expect(page.locator(".envelope dd")).to_have_text("Ring +442079460123 now")
    page.get_by_role("button", name="Use this version", exact=True).click()
    expect(page.get_by_label("Subject")).to_have_value("Ring %%CALLER_NUMBER%% now")


def test_a_placeholder_goes_where_the_cursor_is(page: Page) -> None:
    page.goto(PAGE)
    page.get_by_label("Subject").fill("Lost: ")
    with page.expect_response(re.compile(r"/preview/html$")):
        page.get_by_role("button", name="Insert CALLER_NAME").click()
    expect(page.get_by_label("Subject")).to_have_value("Lost: %%CALLER_NAME%%")
    expect(page.get_by_label("Subject")).to_be_focused()
    expect(page.locator(".envelope dd")).to_have_text("Lost: Ana Kovač")
    page.get_by_label("Body").fill("ab")
    page.get_by_label("Body").press("ArrowLeft")
    page.get_by_role("button", name="Insert REASON").press("Enter")
    expect(page.get_by_label("Body")).to_have_value("a%%REASON%%b")
    expect(mail(page).get_by_text("athe caller hung upb", exact=True)).to_be_visible()


def test_own_html_is_seen_wide_on_a_phone_and_as_text_and_runs_nothing(page: Page) -> None:
    page.goto(WELCOME)
    page.get_by_label("HTML", exact=True).check()
    write(page, "Body", OWN)
    expect(mail(page).get_by_text("Hello Ana Kovač")).to_be_visible()
    assert mail(page).get_by_role("img", name="QR code").evaluate("image => image.naturalWidth") > 0
    expect(page.get_by_role("status").filter(has_text="Not sent")).to_contain_text("<script>")
    assert "taken" not in page.title()
    page.get_by_text("Phone", exact=True).click()
    frame = page.locator("iframe[name=mail]")
    assert frame.evaluate("frame => frame.clientWidth") <= 360
    page.get_by_label("Dark").check()
    assert frame.evaluate("frame => getComputedStyle(frame).colorScheme") == "dark"
    page.get_by_text("Text", exact=True).click()
    expect(frame).to_be_hidden()
    expect(page.get_by_label("The mail as text")).to_contain_text("Hello Ana Kovač: k7#Vt-29.qX")
    write(page, "Body", f"{OWN}<p>more</p>")
    expect(page.get_by_label("The mail as text")).to_contain_text("more")
    assert_usable(page)


def test_what_is_wrong_is_told_and_nothing_moves(page: Page) -> None:
    page.goto(PAGE)
    moving = "document.querySelector('#placeholders').getBoundingClientRect().top"
    before, entries = page.evaluate(moving), page.evaluate("history.length")
    write(page, "Subject", "%%CALLER_NAM%%")
    said = page.locator(".said")
    expect(said).to_contain_text("%%CALLER_NAM%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?")
    page.get_by_label("Body").fill("[x](https://%%CALLER_NAME%%)")
    expect(said).to_contain_text("%%CALLER_NAME%% would decide which site a link opens.")
    write(page, "Body", "Fine")
    expect(mail(page).get_by_text("Fine", exact=True)).to_be_visible()
    assert page.evaluate(moving) == before
    assert page.evaluate("history.length") == entries
    page.get_by_label("Body").fill("[x](https://%%CALLER_NAME%%)")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#body-error")).to_contain_text("would decide which site")
    expect(page.get_by_label("Body")).to_be_focused()
    assert_usable(page)


def test_two_who_write_at_once_lose_nothing(page: Page, sign_in: OpenPage, ready: str) -> None:
    other = sign_in("other@acme.example", administers=ready)
    for each, words in ((page, "Mine"), (other, "Theirs")):
        each.goto(PAGE)
        each.get_by_label("Subject").fill(words)
    for each in (other, page):
        each.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("other@acme.example saved another version meanwhile.")).to_be_visible()
    expect(page.get_by_label("Subject")).to_have_value("Mine")
    assert_usable(page)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The template is saved.")).to_be_visible()
    expect(page.get_by_role("row", name="Theirs")).to_be_visible()
    expect(page.get_by_role("row", name="Mine")).to_contain_text("In use")
    assert_usable(page)


def test_without_javascript(chromium: Browser, page: Page, portal_url: str) -> None:
    with chromium.new_context(base_url=portal_url, java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto("/sign-in")
        plain.get_by_label("Email").fill("admin@acme.example")
        plain.get_by_label("Password").fill(PASSWORD)
        plain.get_by_role("button", name="Sign in").click()
        plain.goto(PAGE)
        expect(plain.get_by_text("%%CALLER_NAME%%", exact=True)).to_be_visible()
        plain.get_by_label("Subject").fill("Plain %%CALLER_NAM%%")
        plain.get_by_label("Body").fill("Hello **%%CALLER_NAME%%**")
        plain.get_by_role("button", name="Preview").click()
        expect(plain.locator(".envelope dd")).to_have_text("Plain")
        expect(plain.locator(".said")).to_contain_text("Did you mean %%CALLER_NAME%%?")
        plain.get_by_role("button", name="Show the mail").click()
        expect(mail(plain).get_by_text("Hello Ana Kovač", exact=True)).to_be_visible()
        plain.get_by_role("button", name="Send a sample to myself").click()
        expect(plain.get_by_text("took the sample for admin@acme.example")).to_be_visible()
        plain.get_by_role("button", name="Save", exact=True).click()
        expect(plain.get_by_label("Body")).to_have_value("Hello **%%CALLER_NAME%%**")
        plain.get_by_role("button", name="Restore the default").click()
        expect(plain.get_by_role("row", name="Plain").get_by_role("button", name="Use this version")).to_be_visible()
