"""Journeys that start on the overview: the checklist, and a mail server that recovers."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, Route, expect

from portal.accounts import service as account_service
from portal.deliveries import statistics
from portal.mail_servers import service as mail_server_settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.test_journeys import fill_in_server
from tests.browser.usable import assert_usable
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer, closed_port
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, entered

OVERVIEW = "/tenants/acme.example/overview"


@pytest.fixture
def without_script(chromium: Browser, portal_url: str, app: Flask, acme: str) -> Iterator[Page]:
    """The browser of Acme's administrator, signed in, without JavaScript."""
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant
        account_service.add("plain@acme.example", PASSWORD, tenant_id=tenant.id)
    with chromium.new_context(base_url=portal_url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/sign-in")
        page.get_by_label("Email").fill("plain@acme.example")
        page.get_by_label("Password").fill(PASSWORD)
        with page.expect_navigation():
            page.get_by_role("button", name="Sign in").click()
        yield page


def step(page: Page, name: str) -> None:
    """Go from the overview to a step of the checklist."""
    page.goto(OVERVIEW)
    page.locator("#now").get_by_role("link", name=name).click()


def test_the_checklist_until_the_first_event(sign_in: OpenPage, acme: str, peer: SmtpPeer, client: FlaskClient) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="OK").click()
    expect(page.get_by_text("0 of 4 steps done")).to_be_visible()
    assert_usable(page)

    step(page, "Mail server")
    fill_in_server(page, peer.port)
    page.locator("#mail-server").get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    step(page, "Recipients")
    page.get_by_label("Add recipients").fill("ops@acme.example")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="ops@acme.example")).to_be_visible()
    step(page, "Events")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.get_by_role("switch", name="When a queue call is lost").check()
    step(page, "PBX key")
    page.get_by_label("Name").fill("Main PBX")
    page.get_by_role("button", name="Issue a key").click()
    secret = page.locator("#new-key").inner_text().strip()

    page.goto(OVERVIEW)
    expect(page.get_by_text("Waiting for the first event.")).to_be_visible()
    assert_usable(page)
    page.get_by_role("link", name="Events").focus()
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"type": "queue.call_lost", "data": CALL_LOST}
    assert client.post("/api/v1/events", json=body, headers=headers).get_json()["status"] == "sent"
    expect(page.get_by_text("Email is working")).to_be_visible()
    expect(page.get_by_text("First steps")).to_have_count(0)
    expect(page.get_by_text("Nothing needs your attention")).to_be_visible()
    page.reload()
    expect(page.get_by_role("img", name="Mails per day from")).to_be_visible()
    page.get_by_role("link", name="When a queue call is lost").click()
    expect(page.get_by_role("heading", name="When a queue call is lost")).to_be_visible()


def test_polling_keeps_the_keyboard_focus(sign_in: OpenPage, acme: str, app: Flask) -> None:
    with app.app_context():
        api_keys.issue(tenant_service.find(acme), "Main PBX")
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#now").get_by_role("link", name="Recipients").focus()
    before = page.locator("#now").bounding_box()
    with page.expect_response("**/overview?polls=*"):
        pass
    expect(page.locator("#now").get_by_role("link", name="Recipients")).to_be_focused()
    assert page.locator("#now").bounding_box() == before, "something moved"


def delay_email(app: Flask, domain: str, post: Post) -> None:
    """Delay an email because its mail server does not respond."""
    with app.app_context():
        tenant = tenant_service.find(domain)
        assert tenant
        with closed_port() as port:
            mail_server_settings.save(tenant.id, entered(port))
            assert post().json["status"] == "deferred"


def test_a_mail_server_that_recovers(
    sign_in: OpenPage, working_tenant: str, post: Post, app: Flask, peer: SmtpPeer, without_script: Page
) -> None:
    pages = [sign_in("admin@acme.example", administers=working_tenant), without_script]
    for page in pages:
        delay_email(app, working_tenant, post)
        page.goto(OVERVIEW)
        expect(page.get_by_role("heading", name="Email is delayed")).to_be_visible()
        if page is not without_script:
            assert_usable(page)
        page.get_by_role("button", name="Try now").click()
        expect(page.get_by_text("The portal is trying the mail server again.")).to_be_visible()
        expect(page.get_by_role("heading", name="Email is delayed")).to_have_count(0)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_pressed_button_takes_precedence_over_polling(
    sign_in: OpenPage, working_tenant: str, post: Post, app: Flask, peer: SmtpPeer
) -> None:
    delay_email(app, working_tenant, post)
    page = sign_in("admin@acme.example", OVERVIEW, administers=working_tenant)
    looking: list[Route] = []
    page.route("**/overview?polls=*", lambda look: looking.append(look))  # Playwright wants a function

    def answer_the_look_first(pressed: Route) -> None:
        looking[0].fulfill(response=looking[0].fetch())
        pressed.continue_()

    page.route("**/overview/try-now", answer_the_look_first)
    with page.expect_request("**/overview?polls=*"):
        pass
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_text("The portal is trying the mail server again.")).to_be_visible()
    expect(page.get_by_role("heading", name="Email is delayed")).to_have_count(0)


def test_from_the_system_to_a_tenant_with_problems_and_its_held_email(
    sign_in: OpenPage, working_tenant: str, post: Post, app: Flask
) -> None:
    for caller in range(12):
        post(data=CALL_LOST | {"caller_number": f"70{caller:02}"})
    with app.app_context():
        long = tenant_service.add(
            "A tenant whose name is as long as names of tenants come, and longer", "l" * 60 + ".example", "UTC"
        )
        api_keys.issue(long)  # type: ignore[arg-type]
        sql("UPDATE api_keys SET created_at = now() - interval '20 days' WHERE last_used_at IS NULL")
        sql("INSERT INTO notification_settings SELECT id, 'queue.call_lost', true, 'both' FROM tenants WHERE id > 1")
        statistics.update()
    page = sign_in("root@pbx.example", system=True)
    expect(page.get_by_role("heading", name="Tenants with problems")).to_be_visible()
    page.get_by_text("Show as table").click()
    expect(page.get_by_role("columnheader", name="Held")).to_be_visible()
    assert_usable(page)
    page.get_by_role("link", name="Acme").click()
    page.get_by_role("link", name="View them").click()
    expect(page.get_by_role("heading", name="Delivery log")).to_be_visible()


def test_a_tenant_with_events_is_usable(sign_in: OpenPage, working_tenant: str, post: Post, peer: SmtpPeer) -> None:
    post()
    peer.script = {"rcpt": "550 5.1.1 " + "no such user here, " * 20}
    post("user.created", {"extension_number": "101"})
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.get_by_text("Show as table").click()
    assert_usable(page)
