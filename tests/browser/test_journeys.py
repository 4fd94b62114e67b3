"""Whole journeys, from the first sign-in to a received email, with and without JavaScript."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest
from flask import Flask
from playwright.sync_api import Page, expect

from portal.demo.mailbox import Mailbox
from portal.mail_servers import service as mail_server_settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.tenant_fixtures import CALL_LOST

GREEN = "You can now use the system administrator's mail server settings to send email notifications."
REMINDER = "Configure your SMTP server to receive notifications."


def post_lost_call(portal_url: str, key: str, caller: str, **fields: object) -> str:
    """Post a lost call as a PBX does and return the status."""
    return post_event(portal_url, key, "queue.call_lost", CALL_LOST | {"caller_number": caller} | fields)


def post_event(portal_url: str, key: str, event_type: str, data: Mapping[str, object]) -> str:
    """Post an event as a PBX does and return the status."""
    body = json.dumps({"type": event_type, "data": data}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{portal_url}/api/v1/events", body, headers)
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["status"])


@pytest.fixture
def key(app: Flask, acme: str) -> str:
    with app.app_context():
        return api_keys.issue(tenant_service.find(acme)).secret


def fill_in_server(page: Page, port: int) -> None:
    page.get_by_label("SMTP Server Address").fill("127.0.0.1")
    page.get_by_label("SMTP Server Port").fill(str(port))
    page.get_by_label("Encryption").select_option(label="None")
    page.get_by_label("Authentication Mode").select_option(label="None")
    page.get_by_label("Sender email").fill("pbx@acme.example")


def save_recipients(page: Page, addresses: str) -> None:
    page.get_by_label("Emails of Recipients").fill(addresses)
    page.locator("form", has=page.get_by_label("Emails of Recipients")).get_by_role("button", name="Save").click()


def test_from_the_first_sign_in_to_a_delivered_email(
    sign_in: OpenPage, acme: str, key: str, portal_url: str, catcher_port: int, mailbox: Mailbox
) -> None:
    page = sign_in("admin@acme.example", administers=acme, by_form=True)
    expect(page.get_by_role("dialog")).to_contain_text(REMINDER)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("heading", name="Mail Server", exact=True)).to_be_visible()

    fill_in_server(page, catcher_port)
    page.get_by_role("button", name="Send test email").click()
    expect(page.get_by_role("status").filter(has_text="accepted the test email for admin@acme.example")).to_be_visible()
    page.locator("form", has=page.get_by_label("SMTP Server Address")).get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    save_recipients(page, "ops@acme.example; night@acme.example")
    expect(page.get_by_label("Emails of Recipients")).to_have_value("ops@acme.example\nnight@acme.example")

    assert post_lost_call(portal_url, key, "+4930977001") == "ignored"
    page.get_by_role("link", name="Notifications", exact=True).click()
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.get_by_role("switch", name="When a queue call is lost").check()
    assert post_lost_call(portal_url, key, "+4930977002") == "sent"

    page.get_by_role("link", name="Delivery log").click()
    row = page.get_by_role("row").filter(has_text="+4930977002")
    expect(row).to_contain_text("Sent")
    expect(row).to_contain_text("ops@acme.example")
    expect(page.get_by_role("row").filter(has_text="+4930977001")).to_contain_text("switched off")
    page.goto("/demo/mail")
    page.get_by_role("link", name="+4930977002").first.click()
    expect(page.frame_locator("iframe").get_by_role("row", name="Caller +4930977002")).to_be_visible()


def test_from_the_shared_server_to_an_own_one_and_back(
    sign_in: OpenPage, app: Flask, acme: str, key: str, portal_url: str, catcher_port: int
) -> None:
    root = sign_in("root@pbx.example", system=True)
    root.get_by_role("link", name="Mail Server").first.click()
    fill_in_server(root, catcher_port)
    root.get_by_role("switch", name="Apply the mail server settings to all tenants").check()
    with root.expect_response(lambda answer: answer.request.method == "POST"):
        root.get_by_role("button", name="Save").click()

    page = sign_in("admin@acme.example", administers=acme)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="Mail Server", exact=True).click()
    expect(page.get_by_text(GREEN, exact=True)).to_be_visible()
    save_recipients(page, "ops@acme.example")
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    page.get_by_role("link", name="Notifications", exact=True).click()
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.get_by_role("switch", name="When a queue call is lost").check()
    assert post_lost_call(portal_url, key, "+4930977003") == "sent"

    page.get_by_role("link", name="Mail Server", exact=True).click()
    page.get_by_text("Use your own mail server").click()
    fill_in_server(page, catcher_port)
    page.locator("form", has=page.get_by_label("SMTP Server Address")).get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Use the system administrator's mail server").click()
    expect(page.get_by_text(GREEN, exact=True)).to_be_visible()
    expect(page.get_by_text("Use your own mail server")).to_be_visible()
    with app.app_context():
        mail_server_settings.share(False)
    page.reload()
    expect(page.get_by_text(GREEN, exact=True)).to_have_count(0)


def test_the_pop_up_can_be_dismissed(sign_in: OpenPage, acme: str, portal_url: str) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto("/")
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.get_by_label("Don't show this message again").check()
    page.get_by_role("button", name="OK").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto("/")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_system_administrator_enters_and_leaves_a_workspace(sign_in: OpenPage, acme: str) -> None:
    page = sign_in("root@pbx.example", system=True)
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("row").filter(has_text="Acme").get_by_role("link", name="Acme", exact=True).click()
    expect(page.get_by_text("You are managing Acme")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="OK").click()
    page.get_by_role("link", name="Back to all tenants").click()
    expect(page.get_by_role("heading", name="Tenants")).to_be_visible()


def test_tenants_are_found_while_typing(sign_in: OpenPage, acme: str, globex: str) -> None:
    page = sign_in("root@pbx.example", system=True)
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("searchbox", name="Name or SIP domain").press_sequentially("glob")
    expect(page.get_by_role("row").filter(has_text="Acme")).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="Globex")).to_have_count(1)


def test_a_key_is_issued_used_and_revoked(sign_in: OpenPage, acme: str, portal_url: str) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    page.get_by_role("link", name="PBX keys").click()
    page.get_by_label("Name").fill("Main PBX")
    page.get_by_role("button", name="Issue a key").click()
    secret = page.locator("#new-key").inner_text()
    assert post_lost_call(portal_url, secret, "+4930977004") == "ignored"
    page.reload()
    expect(page.locator("#new-key")).to_have_count(0)
    page.get_by_text("Rotate").click()
    page.get_by_role("button", name="Issue the new key").click()
    successor = page.locator("#new-key").inner_text()
    assert [post_lost_call(portal_url, each, "+4930977004") for each in (secret, successor)] == ["ignored"] * 2
    expect(page.get_by_text("Expires in 1 day")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").last.click()
    expect(page.get_by_text("Revoked")).to_be_visible()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post_lost_call(portal_url, secret, "+4930977005")
    page.reload()
    expect(page.locator("#rejected-requests")).to_contain_text("Revoked key")
    assert post_lost_call(portal_url, successor, "+4930977006") == "ignored"
