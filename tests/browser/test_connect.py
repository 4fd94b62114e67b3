"""Connecting a PBX and sending samples, with and without JavaScript."""

import re
import urllib.error

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from portal.accounts import service as account_service
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.test_journeys import post_lost_call
from tests.browser.usable import assert_usable, let_pass
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer

CONNECT = "/tenants/acme.example/connect"


def issue(page: Page) -> str:
    """Issue a key on the page and return it."""
    page.get_by_label("Name").fill("Main PBX")
    page.get_by_role("button", name="Issue a key").click()
    return page.locator("#new-key").inner_text()


def test_from_a_key_to_the_first_event(sign_in: OpenPage, working_tenant: str, portal_url: str) -> None:
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.get_by_role("link", name="Connect a PBX").first.click()
    expect(page.get_by_text("Start by issuing a key.")).to_be_visible()
    secret = issue(page)
    expect(page.locator("#snippet-curl")).to_contain_text(secret)
    expect(page.get_by_text("Waiting for the first event with the key Main PBX")).to_be_visible()
    assert_usable(page)
    page.set_viewport_size({"width": 1440, "height": 900})
    for make, name in (("Asterisk", "asterisk"), ("FreeSWITCH", "freeswitch"), ("PortSIP", "portsip-key")):
        page.get_by_role("link", name=make, exact=True).click()
        expect(page.locator(f"#snippet-{name}")).to_contain_text(secret)
        expect(page.locator("#snippet-curl")).to_be_hidden()
    expect(page).to_have_url(re.compile(r"\?pbx=portsip$"))
    with pytest.raises(urllib.error.HTTPError, match="422"):
        post_lost_call(portal_url, secret, "+4930977007", queue_number=None)
    expect(page.locator("#connection-status")).to_contain_text("Wrong fields")
    assert_usable(page)
    post_lost_call(portal_url, secret, "+4930977007")
    expect(page.locator("#connection-status")).to_contain_text("Connected. The first event:")
    expect(page.locator("#snippet-portsip-key")).to_contain_text(secret)
    assert_usable(page)
    page.reload()
    expect(page.get_by_role("link", name="PortSIP", exact=True)).to_have_attribute("aria-current", "true")
    expect(page.locator("#snippet-portsip-key")).to_have_text("KEY")


def test_polling_runs_only_while_the_page_is_visible_and_ends(
    sign_in: OpenPage, working_tenant: str, portal_url: str
) -> None:
    page = sign_in("admin@acme.example", CONNECT, administers=working_tenant)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/connect/status" in request.url else None)
    page.clock.install()
    page.reload()
    secret = issue(page)
    with page.expect_request(re.compile("/connect/status")):
        let_pass(page, 3500)
    assert asked
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    let_pass(page, 300)
    asked.clear()
    post_lost_call(portal_url, secret, "+4930977007")
    let_pass(page, 3500)
    assert not asked
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    expect(page.locator("#connection-status")).to_contain_text("Connected")
    asked.clear()
    let_pass(page, 3500)
    assert not asked


def test_a_snippet_is_copied(sign_in: OpenPage, working_tenant: str) -> None:
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{CONNECT}?pbx=asterisk")
    page.get_by_role("button", name="Copy the snippet for Asterisk").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("[queues]\nexten => 8000,1,Answer()\n same => n,")


@pytest.mark.parametrize("path", [CONNECT, "/tenants/acme.example/notifications"])
def test_a_sample_is_sent(sign_in: OpenPage, working_tenant: str, peer: SmtpPeer, path: str) -> None:
    page = sign_in("admin@acme.example", path, administers=working_tenant)
    page.get_by_role("button", name="Send a sample event: When a queue call is lost").click()
    expect(page.get_by_role("status").filter(has_text="The sample was sent to 2 people.")).to_be_visible()
    expect(page.get_by_role("button", name="Send a sample event: When a queue call is lost")).to_be_focused()
    assert_usable(page)
    page.get_by_role("link", name="View it in the delivery log").click()
    expect(page.get_by_role("row").filter(has_text="When a queue call is lost")).to_contain_text("Sample")


def test_without_javascript(
    app: Flask, chromium: Browser, portal_url: str, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        account_service.add("admin@acme.example", PASSWORD, tenant_id=tenant.id)
    with chromium.new_context(base_url=portal_url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/sign-in")
        page.get_by_label("Email").fill("admin@acme.example")
        page.get_by_label("Password").fill(PASSWORD)
        with page.expect_navigation():
            page.get_by_role("button", name="Sign in").click()
        page.goto(CONNECT)
        page.get_by_role("link", name="Asterisk", exact=True).click()
        secret = issue(page)
        expect(page.locator("#snippet-asterisk")).to_contain_text(secret)
        post_lost_call(portal_url, secret, "+4930977007")
        page.get_by_role("link", name="Check again").click()
        expect(page.locator("#connection-status")).to_contain_text("Connected. The first event:")
        page.get_by_role("button", name="Send a sample event: A new user was created").click()
        expect(page.get_by_text("The sample is at the top of this log.")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text="A new user was created").first).to_contain_text("Sample")


def test_the_api_reference_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("/api/reference", width=360)
    page.get_by_text("Contents").click()
    page.get_by_role("link", name="When the queue callback is unsuccessful").first.click()
    expect(page.locator("[id='queue.callback_failed']")).to_be_in_viewport()
    expect(page.get_by_role("navigation", name="On this page")).to_have_count(0)
