"""Templates: editing beside the preview, and restoring versions."""

import re

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer

PAGE = "/tenants/acme.example/templates/queue.call_lost"
WELCOME = "/tenants/acme.example/templates/user.created"
OWN = """<table width="100%" bgcolor="#003366"><tr><td style="color:#fff">Acme</td></tr></table>
<p>Hello %%DISPLAY_NAME%%: %%EXTENSION_PASSWORD%%</p><script>document.title = "taken"</script>%%QR_CODE%%"""


@pytest.fixture
def page(sign_in: OpenPage, working_tenant: str) -> Page:
    """Acme's notifications page in its administrator's browser."""
    return sign_in("admin@acme.example", "/tenants/acme.example/notifications", administers=working_tenant)


def mail(page: Page) -> FrameLocator:
    """The email in the preview."""
    return page.frame_locator("iframe[name=preview]")


def write(page: Page, label: str, words: str) -> None:
    """Fill in a field and wait for the preview."""
    with page.expect_response(re.compile(r"/preview/html$")):
        page.get_by_label(label).fill(words)


def test_a_subject_is_changed_previewed_sent_and_restored(page: Page, peer: SmtpPeer) -> None:
    page.get_by_role("link", name=re.compile(r"^Template ?: When a queue call is lost")).click()
    expect(page.locator(".subject-line mark").first).to_have_text("Support")
    expect(mail(page).get_by_role("heading")).to_have_text("Call lost in queue Support")
    write(page, "Subject", "Ring %%CALLER_NUMBER%% now")
    expect(page.locator(".subject-line dd")).to_have_text("Ring +442079460123 now")
    expect(page.get_by_label("Subject")).to_be_focused()
    page.get_by_role("button", name="Send me a sample").click()
    expect(page.get_by_text("accepted the sample for admin@acme.example")).to_be_visible()
    assert b"Subject: [Sample] Ring +442079460123 now" in peer.messages[0].content
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The template is saved and will be used from the next email.")).to_be_visible()
    page.get_by_role("link", name="All templates").click()
    expect(page.get_by_role("row", name="When a queue call is lost")).to_contain_text("Ring +442079460123 now")
    expect(page.get_by_role("row", name="When a queue call is lost")).to_contain_text("by admin@acme.example")
    page.get_by_role("link", name="When a queue call is lost").click()
    page.get_by_role("button", name="Restore the default").click()
    expect(page.get_by_label("Subject")).to_have_value("Call lost in queue %%QUEUE_NAME%%: %%CALLER_NUMBER%%")
    page.get_by_role("row", name="Ring").get_by_role("link", name="View").click()
    expect(page.get_by_text("This version is not in use.")).to_be_visible()
    expect(page.locator(".subject-line dd")).to_have_text("Ring +442079460123 now")
    page.get_by_role("button", name="Use this version", exact=True).click()
    expect(page.get_by_label("Subject")).to_have_value("Ring %%CALLER_NUMBER%% now")


def test_a_placeholder_is_inserted_at_the_cursor(page: Page) -> None:
    page.goto(PAGE)
    page.get_by_label("Subject").fill("Lost: ")
    with page.expect_response(re.compile(r"/preview/html$")):
        page.get_by_role("button", name="Insert CALLER_NAME").click()
    expect(page.get_by_label("Subject")).to_have_value("Lost: %%CALLER_NAME%%")
    expect(page.get_by_label("Subject")).to_be_focused()
    expect(page.locator(".subject-line dd")).to_have_text("Lost: Ana Kovač")
    page.get_by_label("Body").fill("ab")
    page.get_by_label("Body").press("ArrowLeft")
    page.get_by_role("button", name="Insert REASON").press("Enter")
    expect(page.get_by_label("Body")).to_have_value("a%%REASON%%b")
    expect(mail(page).get_by_text("athe caller hung upb", exact=True)).to_be_visible()


def test_custom_html_is_previewed_and_runs_no_script(page: Page) -> None:
    page.goto(WELCOME)
    page.get_by_label("HTML", exact=True).check()
    write(page, "Body", OWN)
    expect(mail(page).get_by_text("Hello Ana Kovač")).to_be_visible()
    image = mail(page).get_by_role("img", name="QR code")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0  # once it has loaded
    expect(page.get_by_text("Removed, because emails do not need it: <script>.")).to_be_visible()
    assert "taken" not in page.title()
    page.get_by_text("Phone", exact=True).click()
    frame = page.locator("iframe[name=preview]")
    assert frame.evaluate("frame => frame.clientWidth") <= 360
    page.get_by_label("Dark").check()
    expect(frame).to_have_css("color-scheme", "dark")
    page.get_by_text("Text", exact=True).click()
    expect(frame).to_be_hidden()
    expect(page.get_by_label("Email as text")).to_contain_text("Hello Ana Kovač: k7#Vt-29.qX")
    write(page, "Body", f"{OWN}<p>more</p>")
    expect(page.get_by_label("Email as text")).to_contain_text("more")
    assert_usable(page)


def test_errors_are_shown_without_layout_shift(page: Page) -> None:
    page.goto(PAGE)
    moving = "document.querySelector('#placeholders').getBoundingClientRect().top"
    before, entries = page.evaluate(moving), page.evaluate("history.length")
    write(page, "Subject", "%%CALLER_NAM%%")
    said = page.locator(".warnings")
    expect(said).to_contain_text("%%CALLER_NAM%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?")
    page.get_by_label("Body").fill("[x](https://%%CALLER_NAME%%)")
    expect(said).to_contain_text("%%CALLER_NAME%% would decide which website a link opens.")
    write(page, "Body", "Fine")
    expect(mail(page).get_by_text("Fine", exact=True)).to_be_visible()
    assert page.evaluate(moving) == before
    assert page.evaluate("history.length") == entries
    page.get_by_label("Body").fill("[x](https://%%CALLER_NAME%%)")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#body-error")).to_contain_text("would decide which website")
    expect(page.get_by_label("Body")).to_be_focused()
    assert_usable(page)


def test_two_editors_at_once_lose_nothing(page: Page, sign_in: OpenPage, working_tenant: str) -> None:
    other = sign_in("other@acme.example", administers=working_tenant)
    for each, words in ((page, "Mine"), (other, "Theirs")):
        each.goto(PAGE)
        each.get_by_label("Subject").fill(words)
    other.get_by_role("button", name="Save", exact=True).click()
    expect(other.get_by_text("The template is saved and will be used from the next email.")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("other@acme.example has saved another version in the meantime.")).to_be_visible()
    expect(page.get_by_label("Subject")).to_have_value("Mine")
    assert_usable(page)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The template is saved and will be used from the next email.")).to_be_visible()
    expect(page.get_by_role("row", name="Theirs")).to_be_visible()
    expect(page.get_by_role("row", name="Mine")).to_contain_text("In use")
    assert_usable(page)


def test_without_javascript(chromium: Browser, page: Page, portal_url: str) -> None:
    with chromium.new_context(base_url=portal_url, java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto("/sign-in")
        plain.get_by_label("Email").fill("admin@acme.example")
        plain.get_by_label("Password").fill(PASSWORD)
        with plain.expect_navigation():
            plain.get_by_role("button", name="Sign in").click()
        plain.goto(PAGE)
        expect(plain.get_by_text("%%CALLER_NAME%%", exact=True)).to_be_visible()
        plain.get_by_label("Subject").fill("Plain %%CALLER_NAM%%")
        plain.get_by_label("Body").fill("Hello **%%CALLER_NAME%%**")
        plain.get_by_role("button", name="Preview").click()
        expect(plain.locator(".subject-line dd")).to_have_text("Plain")
        expect(plain.locator(".warnings")).to_contain_text("Did you mean %%CALLER_NAME%%?")
        plain.get_by_role("button", name="Show the email").click()
        expect(mail(plain).get_by_text("Hello Ana Kovač", exact=True)).to_be_visible()
        plain.get_by_role("button", name="Send me a sample").click()
        expect(plain.get_by_text("accepted the sample for admin@acme.example")).to_be_visible()
        plain.get_by_role("button", name="Save", exact=True).click()
        expect(plain.get_by_text("save again to keep them")).to_be_visible()
        plain.get_by_role("button", name="Save", exact=True).click()
        expect(plain.get_by_label("Body")).to_have_value("Hello **%%CALLER_NAME%%**")
        plain.get_by_role("button", name="Restore the default").click()
        expect(plain.get_by_role("row", name="Plain").get_by_role("button", name="Use this version")).to_be_visible()
