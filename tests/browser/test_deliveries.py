"""The delivery log: held email, actions, filters, refreshes."""

import re
import time
from collections.abc import Callable

import pytest
from flask import Flask
from playwright.sync_api import Browser, Locator, Page, expect

from portal.database.scope import enter_scope
from portal.deliveries import digest
from portal.mail_servers import service as mail_server_settings
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.usable import HEIGHT, WIDTHS, assert_accessible, assert_usable, let_pass
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post

LOG = "/tenants/acme.example/deliveries"
# Keeps how far anything on the page moved without anybody's doing.
WATCH_SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const it of list.getEntries()) if (!it.hadRecentInput) shifts.push(it.value);
    }).observe({type: "layout-shift"});
"""
Work = Callable[[int], None]


@pytest.fixture
def worker(app: Flask) -> Work:
    """A function that works like a worker until that many emails were attempted."""

    def run(count: int) -> None:
        deadline = time.monotonic() + 60
        while count > 0:
            assert time.monotonic() < deadline, f"{count} mails are not due"
            with app.app_context():
                count -= send_due_emails()

    return run


@pytest.fixture
def page(sign_in: OpenPage, working_tenant: str) -> Page:
    """The log of Acme in its administrator's browser, which confirms every dialog."""
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.on("dialog", lambda dialog: dialog.accept())
    return page


def post_lost_calls(post: Post, *callers: int) -> None:
    for caller in callers:
        post(data=CALL_LOST | {"caller_number": str(caller)})


def event_row(page: Page, caller: int) -> Locator:
    """The row of the event with this caller, with all its emails."""
    return page.locator("tbody[id]").filter(has_text=f"· {caller}")


def remove_server(app: Flask) -> None:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        mail_server_settings.remove(tenant.id)


def test_held_email_shows_the_reason_and_is_released_when_it_is_fixed(
    page: Page, app: Flask, post: Post, peer: SmtpPeer, worker: Work
) -> None:
    remove_server(app)
    post_lost_calls(post, 7001)
    page.goto(LOG)
    expect(event_row(page, 7001)).to_contain_text("Held")
    event_row(page, 7001).get_by_role("link", name="Set up a mail server").click()
    page.get_by_label("SMTP Server Address").fill("127.0.0.1")
    page.get_by_label("SMTP Server Port").fill(str(peer.port))
    page.get_by_label("Encryption").select_option(label="None")
    page.get_by_label("Authentication Mode").select_option(label="None")
    page.get_by_label("Sender email").fill("pbx@acme.example")
    page.locator("#mail-server").get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    page.goto(LOG)
    worker(1)  # releases and sends it
    expect(event_row(page, 7001)).to_contain_text("Sent")
    expect(event_row(page, 7001).get_by_role("button", name="Send again")).to_be_visible()


def test_a_selection_is_sent_now_and_the_page_shows_the_result(
    page: Page, post: Post, peer: SmtpPeer, worker: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post_lost_calls(post, 7001, 7002, 7003)
    peer.script = {}
    page.goto(LOG)
    bar = page.get_by_role("group", name="Selected emails")
    expect(bar).to_be_hidden()
    for caller in (7001, 7003):
        event_row(page, caller).get_by_role("checkbox").check()
    bar.get_by_role("button", name="Send now").click()
    expect(page.get_by_text("2 emails will be sent now.")).to_be_visible()
    expect(bar).to_be_hidden()
    expect(event_row(page, 7003).locator("th a")).to_be_focused()
    worker(2)
    for caller in (7001, 7003):
        expect(event_row(page, caller)).to_contain_text("Sent")
    expect(event_row(page, 7002)).to_contain_text("Will try again")


def test_all_are_selected_at_once_and_discarded(page: Page, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post_lost_calls(post, 7001, 7002, 7003)
    page.goto(LOG)
    event_row(page, 7001).get_by_role("checkbox").check()
    page.get_by_role("button", name="Select all").click()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(3)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(0)
    event_row(page, 7001).get_by_role("checkbox").check()
    page.get_by_role("button", name="Select all").click()
    page.get_by_role("group", name="Selected emails").get_by_role("button", name="Discard").click()
    expect(page.get_by_text("3 emails were discarded.")).to_be_visible()
    expect(page.locator("tbody[id]").get_by_text("Discarded")).to_have_count(3)
    expect(page.get_by_role("checkbox")).to_have_count(0)


def test_an_action_on_one_email_keeps_the_selection(page: Page, post: Post, peer: SmtpPeer, worker: Work) -> None:
    post_lost_calls(post, 7001)
    peer.script = {"dot": "451 4.3.0 later"}
    post_lost_calls(post, 7002, 7003)
    peer.script = {}
    page.goto(LOG)
    event_row(page, 7002).get_by_role("checkbox").check()
    event_row(page, 7003).get_by_role("button", name="Discard").click()
    expect(event_row(page, 7003)).to_contain_text("Discarded")
    expect(event_row(page, 7003).locator("th a")).to_be_focused()

    event_row(page, 7001).get_by_role("button", name="Send again").click()
    expect(page.get_by_text("The email is being sent again.")).to_be_visible()
    expect(event_row(page, 7001)).to_contain_text("Requested again")
    worker(1)
    expect(event_row(page, 7002).get_by_role("checkbox")).to_be_checked()
    event_row(page, 7002).get_by_role("checkbox").uncheck()
    expect(event_row(page, 7001).get_by_text("Sent", exact=True)).to_have_count(2)
    expect(event_row(page, 7002)).to_contain_text("Will try again")


def test_a_pause_is_ended(page: Page, post: Post, peer: SmtpPeer, worker: Work) -> None:
    peer.script = {"greeting": "421 4.3.2 closing"}
    post_lost_calls(post, 7001)
    peer.script = {}
    page.goto(LOG)
    strip = page.get_by_role("complementary", name="Mail server")
    expect(strip).to_contain_text("Paused")
    assert_usable(page)
    strip.get_by_role("button", name="Try now").click()
    expect(page.get_by_text("The portal is trying the mail server again.")).to_be_visible()
    expect(strip).not_to_contain_text("Paused")
    worker(1)
    page.goto(LOG)
    expect(event_row(page, 7001)).to_contain_text("Sent")


def test_storm_limits_are_set(page: Page) -> None:
    page.goto("/tenants/acme.example/notifications")
    page.get_by_label("Emails", exact=True).fill("0")
    page.locator("#storm-limits").get_by_role("button", name="Save").click()
    expect(page.get_by_text("Enter a number of emails from 1 to 1,000.")).to_be_visible()
    expect(page.get_by_label("Emails", exact=True)).to_be_focused()
    assert_usable(page)
    page.get_by_label("Emails", exact=True).fill("3")
    page.locator("#storm-limits").get_by_role("button", name="Save").click()
    expect(page.get_by_text("The limits are saved.")).to_be_visible()
    expect(page.get_by_label("Emails", exact=True)).to_have_value("3")


def test_the_list_and_the_url_follow_the_search(page: Page, post: Post) -> None:
    post_lost_calls(post, 7001, 7002)
    page.goto(LOG)
    page.evaluate(WATCH_SHIFTS)
    page.get_by_label("Search").press_sequentially("7002", delay=30)
    expect(page.locator("tbody[id]")).to_have_count(1)
    expect(event_row(page, 7002)).to_be_visible()
    expect(page.get_by_label("Search")).to_be_focused()
    expect(page).to_have_url(re.compile(r"/deliveries\?q=7002$"))
    page.get_by_label("Outcome").select_option(label="Failed")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/deliveries\?q=7002&outcome=failed$"))
    assert_usable(page)
    page.get_by_role("link", name=re.compile("Outcome Failed")).click()
    expect(event_row(page, 7002)).to_be_visible()
    expect(page.get_by_label("Outcome")).to_have_value("")
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("tbody[id]")).to_have_count(2)


def test_more_filters_can_be_opened(page: Page, post: Post) -> None:
    post_lost_calls(post, 7001)
    page.goto(LOG)
    expect(page.get_by_label("Recipient")).to_be_hidden()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Recipient").fill("nobody@")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Recipient")).to_have_value("nobody@")
    page.get_by_label("Recipient").fill("night@")
    expect(event_row(page, 7001)).to_be_visible()
    assert_usable(page)


def test_new_events_are_announced_and_shown_on_request(page: Page, post: Post) -> None:
    post_lost_calls(post, 7001)
    page.goto(LOG)
    page.evaluate(WATCH_SHIFTS)
    place = event_row(page, 7001).bounding_box()
    post_lost_calls(post, 7002, 7003)
    news = page.get_by_role("status").get_by_role("link", name="2 new events")
    expect(news).to_be_visible()
    assert event_row(page, 7001).bounding_box() == place
    assert page.evaluate("shifts") == []
    assert_usable(page)
    news.click()
    expect(event_row(page, 7003).locator("th a")).to_be_focused()
    expect(page.locator("tbody[id]")).to_have_count(3)
    expect(news).to_have_count(0)


def test_no_refresh_while_the_page_is_hidden_or_something_is_selected(
    page: Page, post: Post, peer: SmtpPeer, worker: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post_lost_calls(post, 7001)
    peer.script = {}
    page.clock.install()
    page.goto(LOG)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/updates" in request.url else None)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true})")
    page.evaluate("window.away = true")
    let_pass(page, 3500)
    assert asked == []
    page.evaluate("window.away = false")
    with page.expect_request(re.compile("/updates")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        let_pass(page, 200)
    assert len(asked) == 1, "it looks at once when it is shown again"
    event_row(page, 7001).get_by_role("checkbox").check()
    let_pass(page, 3500)
    assert len(asked) == 1
    event_row(page, 7001).get_by_role("checkbox").uncheck()
    with page.expect_request(re.compile("/updates")):
        let_pass(page, 3500)
    assert len(asked) > 1


def test_the_timeline_of_an_event_is_updated(page: Page, app: Flask, post: Post, peer: SmtpPeer, worker: Work) -> None:
    peer.script = {"rcpt": ["250 ok", "451 4.7.1 Greylisted, come back later"]}
    post_lost_calls(post, 7001)
    peer.script = {}
    page.goto(LOG)
    event_row(page, 7001).get_by_role("link", name="When a queue call is lost").click()
    expect(page.locator(".event-status")).to_contain_text("Partly sent")
    expect(page.locator(".timeline")).to_contain_text("delays email from unknown senders")
    assert_usable(page)
    page.get_by_role("button", name="Send now").click()
    expect(page.locator(".timeline")).to_contain_text("Sent now by admin@acme.example")
    expect(page.locator(".event-status")).to_be_focused()
    worker(1)
    expect(page.locator(".event-status")).to_contain_text("The mail server accepted it for everyone.")
    expect(page.locator(".timeline > li")).to_have_count(4)
    page.get_by_role("link", name="Delivery log").last.click()
    expect(event_row(page, 7001)).to_contain_text("Sent")


def test_without_javascript_the_log_is_filtered_and_emails_are_managed(
    chromium: Browser, page: Page, portal_url: str, post: Post, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post_lost_calls(post, 7001, 7002)
    with chromium.new_context(
        base_url=portal_url, java_script_enabled=False, storage_state=page.context.storage_state()
    ) as context:
        plain = context.new_page()
        plain.goto(LOG)
        plain.get_by_label("Search").fill("7002")
        plain.get_by_role("button", name="Filter").click()
        expect(plain.locator("tbody[id]")).to_have_count(1)
        expect(plain).to_have_url(re.compile("q=7002"))
        event_row(plain, 7002).get_by_role("button", name="Discard").click()
        expect(event_row(plain, 7002)).to_contain_text("Discarded")
        assert "q=7002" in plain.url, "one comes back to what one looked at"
        event_row(plain, 7002).get_by_role("link", name="When a queue call is lost").click()
        expect(plain.locator(".timeline")).to_contain_text("Discarded by admin@acme.example")
        plain.goto(LOG)
        event_row(plain, 7001).get_by_role("link", name="When a queue call is lost").click()
        plain.get_by_role("button", name="Discard").click()
        expect(plain.locator(".event-status")).to_contain_text("Discarded")


def test_the_filtered_log_is_downloaded(page: Page, post: Post) -> None:
    post_lost_calls(post, 7001, 7002)
    page.goto(f"{LOG}?q=7002")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "delivery-log-acme.example.csv"
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 3
    assert all("7002" in line for line in lines[1:])


# What a mail may be like, beyond what the mail server makes of it at once.
OTHERWISE = {
    7001: "status = 'deferred', next_attempt_at = now() + interval '4 hours', attempts = 4",
    7002: "status = 'deferred', next_attempt_at = now(), attempts = 1",
    7003: "status = 'expired', next_attempt_at = NULL, attempts = 6",
    7004: "status = 'discarded', next_attempt_at = NULL",
    7005: "status = 'held', reason = 'no_mail_server', next_attempt_at = NULL, attempts = 0, mail_server_label = NULL",
    7006: "status = 'held', reason = 'mail_server_rejected', next_attempt_at = NULL",
    7007: "status = 'held', reason = 'may_have_been_sent', next_attempt_at = NULL",
}
OF_CALLER = "(SELECT id FROM events WHERE data ->> 'caller_number' = :caller)"
RECIPIENT_STATUSES = f"""
    UPDATE delivery_recipients r SET status = d.status FROM deliveries d
    WHERE r.delivery_id = d.id AND d.event_id IN {OF_CALLER}
"""


@pytest.fixture
def everything(app: Flask, post: Post, peer: SmtpPeer, working_tenant: str) -> None:
    """A log with every event type and status."""
    remove_setting = "DELETE FROM notification_settings WHERE event_type = 'queue.callback_completed'"
    with app.app_context():
        sql(remove_setting)
    post("queue.callback_completed", {"queue_number": "8000", "caller_number": "1", "callback_number": "1"})
    peer.script = {"dot": "451 4.3.0 The mailbox is busy, come back later"}
    post_lost_calls(post, *OTHERWISE)
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 No such user here"]}
    post("queue.sla_breached", {"queue_number": "8000", "caller_number": "1", "sla_seconds": 60})
    peer.script = {"dot": "554 5.7.1 Message refused as spam"}
    post("queue.callback_failed", {"queue_number": "8000", "caller_number": "1", "callback_number": "1"})
    peer.script = {}
    post("user.created", {"extension_number": "1001", "extension_password": "x", "email": "ana@acme.example"})
    for caller in range(7101, 7113):
        post(data=CALL_LOST | {"queue_number": "8001", "queue_name": "Support", "caller_number": str(caller)})
    with app.app_context():
        for caller, values in OTHERWISE.items():
            changed = f"UPDATE deliveries SET {values} WHERE event_id IN {OF_CALLER}"
            for statement in (changed, RECIPIENT_STATUSES):
                sql(statement, caller=str(caller))
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        assert sum(digest.write_digest(*each) for each in digest.ended_storms()) == 1


def test_a_log_with_every_status(page: Page, everything: None) -> None:
    page.goto(LOG)
    assert_usable(page)
    page.get_by_role("checkbox").first.check()
    assert_usable(page)


def test_the_page_of_every_event(page: Page, everything: None) -> None:
    page.goto(LOG)
    links = page.locator("tbody th a").evaluate_all("them => them.map((it) => it.getAttribute('href'))")
    assert len(links) > 20
    for address in [*links[:3], *links[-12:]]:
        page.goto(address)
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            assert page.evaluate(wider) <= 0, f"{address} at {width}px"
        assert_accessible(page)
