"""Journeys of a system administrator among many tenants, and tables with long names."""

import re

import pytest
from flask import Flask
from playwright.sync_api import expect

from portal.mail_servers import service as mail_server_settings
from portal.overview import alerts
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.usable import HEIGHT, assert_usable
from tests.sql import sql
from tests.tenant_fixtures import Post, entered

IN_TROUBLE = "INSERT INTO notification_settings SELECT id, 'queue.call_lost', true, 'both' FROM tenants"
LONG = "Wolfeschlegelsteinhausenbergerdorff" * 6
NAME = f"left('{LONG}', 190)"
LONG_NAMES = f"""
    UPDATE tenants SET name = left('{LONG}', 100);
    UPDATE events SET data = data || jsonb_build_object('queue_name', {NAME}, 'caller_number', {NAME});
    UPDATE delivery_recipients SET email = {NAME} || position || '@acme.example', text = '{LONG}';
    UPDATE recipients SET email = {NAME} || id || '@acme.example';
    UPDATE api_keys SET name = left('{LONG}', 60);
    UPDATE accounts SET email = lower({NAME}) || '@acme.example';
    UPDATE mail_servers SET host = {NAME};
    INSERT INTO rejected_requests (tenant_id, reason, event_type, hour, count, last_request_at, detail)
        SELECT id, 'invalid', '{LONG}', now(), 1, now(), '{LONG}' FROM tenants;
    INSERT INTO audit_entries (id, created_at, tenant_id, actor, action, subject, changes)
        SELECT gen_random_uuid(), now(), id, '{LONG}', 'recipients.changed', '{LONG}',
            json_build_object('to', json_build_array(json_build_array('{LONG}'), json_build_array('x{LONG}')))
        FROM tenants
"""
TOO_WIDE = """() => {
    const right = (it) => it?.getBoundingClientRect().right ?? innerWidth;
    const isHidden = (it) => !it.checkVisibility() || getComputedStyle(it).clipPath !== "none"
        || it.closest(".wide-table, .visually-hidden, thead, template, iframe, .skip");
    return [...document.querySelectorAll("body *")]
        .filter((it) => !isHidden(it) && right(it) > Math.min(innerWidth, right(it.closest(".panel"))) + 1)
        .slice(0, 3).map((it) => it.outerHTML.slice(0, 150));
}"""


FOUND = re.compile(r"\?health=problem&q=customer&sort=name$")


def test_finding_a_tenant_in_trouble_and_coming_back(
    sign_in: OpenPage, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_TENANTS_SHOWN", 1)
    with app.app_context():
        for number in range(3):
            tenant_service.add(f"Customer {number}", f"c{number}.example", "UTC")
        sql(IN_TROUBLE)
        tenant_service.add("Calm", "calm.example", "UTC")
    page = sign_in("root@pbx.example", system=True)
    page.get_by_role("link", name="And 2 more").click()
    expect(page.get_by_text("3 tenants", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Calm")).to_have_count(0)
    assert_usable(page)
    page.get_by_label("Name or SIP domain").press_sequentially("customer")
    page.wait_for_url("**q=customer**")
    page.get_by_role("link", name="Tenant", exact=True).click()
    expect(page.get_by_role("columnheader", name="Tenant")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="Customer 1", exact=True).click()
    expect(page.get_by_text("Events are on")).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")  # the reminder to set up a mail server
    page.get_by_role("navigation").get_by_role("link", name="Recipients", exact=True).click()
    page.get_by_role("link", name="Back to all tenants").click()
    expect(page).to_have_url(FOUND)
    expect(page.get_by_label("Health")).to_have_value("problem")
    page.get_by_role("link", name="Customer 1", exact=True).click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(FOUND)
    expect(page.get_by_text("3 tenants", exact=True)).to_be_visible()
    page.get_by_label("Search all tenants").fill("c2.example")
    page.keyboard.press("Enter")
    page.locator("main").get_by_role("link", name="Customer 2").click()
    expect(page.get_by_text("You are managing Customer 2")).to_be_visible()


def test_a_new_tenant_in_the_time_zone_of_the_browser(sign_in: OpenPage, app: Flask) -> None:
    page = sign_in("root@pbx.example", "/system/overview", system=True)
    zone = {"timezoneId": "America/Lima"}
    page.context.new_cdp_session(page).send("Emulation.setTimezoneOverride", zone)
    page.goto("/system/tenants/new")
    expect(page.get_by_label("Time zone")).to_have_value("America/Lima")
    page.get_by_label("Name").fill("Initech")
    page.get_by_label("SIP domain").fill("initech.example")
    page.get_by_role("button", name="Add tenant").click()
    expect(page.get_by_text("0 of 5 steps done")).to_be_visible()
    page.get_by_role("link", name="Recipients", exact=True).click()
    expect(page.get_by_role("heading", name="Recipients", exact=True)).to_be_visible()


def test_suspending_and_stopping_to_share_can_be_undone(sign_in: OpenPage, app: Flask, acme: str) -> None:
    with app.app_context():
        sql(IN_TROUBLE)
        mail_server_settings.save(None, entered(2525), shared=True)
    page = sign_in("root@pbx.example", f"/system/tenants/{acme}", system=True)
    page.get_by_role("link", name="Suspend…").click()
    page.get_by_role("button", name="Suspend").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Acme is active again.")).to_be_visible()

    page.goto("/system/mail-server")
    page.get_by_label("Apply the mail server settings to all tenants").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("1 tenant will send no email.")).to_be_visible()
    assert_usable(page)
    page.get_by_role("button", name="Stop sharing").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Apply the mail server settings to all tenants")).to_be_checked()


def test_long_names_do_not_break_a_table(sign_in: OpenPage, app: Flask, post: Post, working_tenant: str) -> None:
    post()
    page = sign_in("root@pbx.example", "/system/overview", system=True)
    with app.app_context():
        sql(LONG_NAMES)
        ((event_id,),) = sql("SELECT id FROM events")
    tenant = ("overview", "deliveries", f"deliveries/{event_id}", "recipients", "keys", "connect", "audit", "templates")
    paths = ("/system/tenants", "/system/audit", "/system/search?q=Wolf", "/system/overview", "/api/reference")
    too_wide = {}
    for path in (*paths, *(f"/tenants/{working_tenant}/{name}" for name in tenant)):
        page.goto(path)
        for width in (360, 768, 1024, 1440):
            page.set_viewport_size({"width": width, "height": HEIGHT})
            if found := page.evaluate(TOO_WIDE):
                too_wide[path, width] = found
    assert not too_wide
