"""Recipients: events, pausing and resuming, with and without JavaScript."""

from flask import Flask
from playwright.sync_api import Browser, expect

from portal.database.scope import enter_scope
from portal.notifications import recipient_links, recipients
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import Post

PAGE = "/tenants/acme.example/recipients"


def excluded(app: Flask) -> dict[str, list[str]]:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        return {each.email: each.excluded_event_types for each in recipients.list_recipients()}


def test_events_of_a_recipient(sign_in: OpenPage, app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 <night@acme.example>: user unknown"]}
    assert post().json["status"] == "partial"
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.get_by_role("link", name="Recipients").click()
    night = page.get_by_role("row").filter(has_text="night@acme.example")
    expect(night).to_contain_text("this mailbox does not exist")
    for address in ("ops@acme.example", "night@acme.example"):
        with page.expect_response(lambda answer: answer.request.method == "POST"):
            page.get_by_role("checkbox", name=f"When a queue call is lost for {address}").uncheck()
    expect(
        page.get_by_role("status").filter(has_text="No recipient gets these events: When a queue call is lost.")
    ).to_be_visible()
    assert excluded(app) == {"ops@acme.example": ["queue.call_lost"], "night@acme.example": ["queue.call_lost"]}
    assert post().json["reason"] == "no_recipient_wants_it"
    assert_usable(page)

    page.set_viewport_size({"width": 1440, "height": 900})
    night.get_by_text("Pause", exact=False).first.click()
    night.get_by_label("No emails until").fill("2020-01-01")
    night.get_by_role("button", name="Pause").click()
    expect(night).to_contain_text("Choose a day between tomorrow and a year from now.")
    last = night.get_by_label("No emails until").get_attribute("max")  # the first may be over by midnight
    night.get_by_label("No emails until").fill(last or "")
    night.get_by_role("button", name="Pause").click()
    expect(night).to_contain_text("Paused until")
    night.get_by_role("button", name="End pause").click()
    expect(night).not_to_contain_text("Paused until")

    page.get_by_label("Add recipients").fill("new@acme.example")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("row")).to_have_count(4)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove night@acme.example").click()
    expect(page.get_by_role("row")).to_have_count(3)
    expect(page.get_by_label("Add recipients")).to_be_focused()


def test_without_javascript(
    sign_in: OpenPage, chromium: Browser, app: Flask, working_tenant: str, portal_url: str
) -> None:
    cookies = sign_in("admin@acme.example", administers=working_tenant).context.storage_state()
    with chromium.new_context(base_url=portal_url, java_script_enabled=False, storage_state=cookies) as context:
        page = context.new_page()
        page.goto(PAGE)
        page.get_by_role("checkbox", name="When a queue call is lost for ops@acme.example").uncheck()
        with page.expect_navigation():
            page.get_by_role("button", name="Save ops@acme.example").click()
        assert excluded(app)["ops@acme.example"] == ["queue.call_lost"]
        expect(page.get_by_role("checkbox", name="When a queue call is lost for ops@acme.example")).not_to_be_checked()
        ops = page.get_by_role("row").filter(has_text="ops@acme.example")
        ops.locator("summary").click()
        ops.get_by_label("No emails until").fill(ops.get_by_label("No emails until").get_attribute("max") or "")
        ops.get_by_role("button", name="Pause").click()
        expect(ops).to_contain_text("Paused until")
        ops.get_by_role("button", name="End pause").click()
        expect(ops).not_to_contain_text("Paused until")


def test_the_pages_of_one_recipient(
    sign_in: OpenPage, open_page: OpenPage, live_app: Flask, working_tenant: str
) -> None:
    page = sign_in("admin@acme.example", PAGE, administers=working_tenant)
    page.get_by_role("row").filter(has_text="ops@acme.example").get_by_role("link", name="Edit").click()
    page.get_by_label("Queues").fill("8000")
    for day in ("Sat", "Sun"):
        page.get_by_label(day).check()
    page.get_by_label("From").fill("00:00")
    page.get_by_label("Until").fill("00:00")
    assert_usable(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Quiet hours: 00:00 to 00:00 (Sat, Sun)")).to_be_visible()
    with live_app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        own, shared = (recipient_links.new_url(tenant.id, email) for email in ("ops@acme.example", ""))
    page = open_page(own)
    expect(page.get_by_label("Queues")).to_have_value("8000")
    assert_usable(page)
    page.get_by_label("No emails").select_option("until I resume them")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("You get no emails until you resume them.")).to_be_visible()
    assert_usable(page)
    page = open_page(shared)
    page.get_by_label("Your email address").fill("ops@acme.example")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_text("If ops@acme.example is a recipient")).to_be_visible()
    assert_usable(page)
