"""The first day of each reader: what a person sees, in at most so many clicks and pages. Nothing needs a shell.

Only the first account is made for them, and the mail catcher is their mail server. What another reader did before them
is done by the functions behind that reader's pages.
"""

import re
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from flask import Flask
from playwright.sync_api import Locator, Page, expect

from portal.accounts import service as account_service
from portal.accounts.models import ADMINISTRATOR, VIEWER
from portal.database.scope import enter_scope
from portal.deliveries import retry
from portal.demo.mailbox import CapturedEmail, Mailbox
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.people import invitations
from portal.provisioning import linphone
from portal.tenants import service as tenant_service
from tests.authenticator import Authenticator
from tests.browser.conftest import OpenPage
from tests.browser.test_journeys import fill_in_server, post_event, post_lost_call
from tests.conftest import make_account
from tests.pages import PASSWORD
from tests.tenant_fixtures import entered

EVENT, SETTINGS = "View this event in the portal", "Pause or change these emails"

Caught = Callable[[str], CapturedEmail]


class Walk:
    """A person in a browser. Counts their clicks, and the pages that they come to."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self.pages = page, 0, 1
        self.path = page.url
        page.on("framenavigated", lambda frame: self._arrive(frame.url) if frame == page.main_frame else None)

    def _arrive(self, url: str) -> None:
        """Count a page unless it is the same one again, as after saving."""
        self.pages, self.path = self.pages + (url != self.path), url

    def click(self, target: Locator) -> None:
        """Click what is there only once."""
        target.click()
        self.clicks += 1

    def press(self, name: str) -> None:
        """Click the button with this text."""
        self.click(self.page.get_by_role("button", name=name, exact=True))

    def follow(self, name: str) -> None:
        """Click the link with this text."""
        self.click(self.page.locator("main, aside").get_by_role("link", name=name, exact=True).first)

    def choose(self, name: str) -> None:
        """Click an entry of the navigation."""
        self.click(self.page.locator(".sidebar").get_by_role("link", name=name, exact=True))

    def open_link(self, email: CapturedEmail, text: str) -> None:
        """Click a link in an email."""
        self.page.goto(links_in(email)[text])
        self.clicks += 1

    def sees(self, text: str) -> None:
        """Wait for a text."""
        expect(self.page.get_by_text(text).locator("visible=true").first).to_be_visible()

    def took(self, *, clicks: int, pages: int) -> None:
        """Check the numbers of clicks and pages until now."""
        self.page.wait_for_load_state()
        assert self.clicks <= clicks
        assert self.pages <= pages


class _Links(HTMLParser):
    """The links of an email: their URLs by their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.urls, self.url = dict[str, str](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.url = dict(attrs).get("href") or ""

    def handle_data(self, data: str) -> None:
        if self.url and data.strip():
            self.urls[" ".join(data.split())] = self.url

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.url = ""


def links_in(email: CapturedEmail) -> dict[str, str]:
    """Return the URLs of the links in an email, by their texts."""
    links = _Links()
    links.feed(email.body("html") or "")
    return links.urls


@pytest.fixture
def caught(mailbox: Mailbox) -> Caught:
    """A function that waits for an email to someone, and returns the newest that it has not returned yet."""
    before = set(mailbox.numbers())

    def caught(recipient: str) -> CapturedEmail:
        for _ in range(400):  # 20 seconds: it is sent in the background
            for email in mailbox.newest(20):
                if email.number not in before and recipient in email.header("To"):
                    before.update(mailbox.numbers())
                    return email
            time.sleep(0.05)
        pytest.fail(f"no email to {recipient}")

    return caught


@pytest.fixture
def shared_server(app: Flask, catcher_port: int) -> None:
    """A mail server that the system administrator shares: the catcher."""
    with app.app_context():
        mail_server_settings.save(None, entered(catcher_port), shared=True)


@pytest.fixture
def set_up_tenant(app: Flask, acme: str, shared_server: None) -> str:
    """A tenant whose administrator has finished the first day, but for the PBX."""
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
        settings.set_enabled(tenant, EVENT_TYPES, on=True)
    return acme


def test_a_system_administrator(live_app: Flask, open_page: OpenPage, catcher_port: int, caught: Caught) -> None:
    make_account(live_app, "root@pbx.example", system=True)
    page = open_page("/sign-in")
    walk = Walk(page)
    page.get_by_label("Email").fill("root@pbx.example")
    page.get_by_label("Password").fill(PASSWORD)
    walk.press("Sign in")
    walk.follow("Set up a mail server")
    fill_in_server(page, catcher_port)
    walk.press("Send test email")
    walk.sees("accepted the test email for root@pbx.example")
    walk.click(page.get_by_role("switch", name="Apply the mail server settings to all tenants"))
    walk.press("Save")
    walk.sees("The mail server is saved.")
    walk.took(clicks=5, pages=3)

    walk.choose("Sign-in")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        walk.click(page.get_by_role("switch", name="Require two-factor authentication"))
    walk.choose("Tenants")
    page.get_by_label("Code").wait_for()
    phone = Authenticator(page.content())
    page.get_by_label("Code").fill(phone.code(-1))
    walk.press("Turn on")
    walk.follow("I have saved the codes")
    walk.took(clicks=10, pages=6)

    walk.choose("Tenants")
    walk.follow("Add tenant")
    page.get_by_label("Name").fill("Acme")
    page.get_by_label("SIP domain").fill("acme.example")
    walk.press("Add tenant")
    walk.sees("1 of 5 steps done")
    walk.follow("Administrator")
    walk.follow("Invite someone")
    page.get_by_label("Email").fill("admin@acme.example")
    walk.press("Send the invitation")
    walk.sees("Open invitations")
    assert "View the invitation" in links_in(caught("admin@acme.example"))
    walk.follow("Back to all tenants")
    expect(page.get_by_role("row").filter(has_text="Acme")).to_contain_text("Not in use")
    walk.took(clicks=17, pages=13)


def invite(app: Flask, domain: str, email: str, role: str) -> None:
    """Invite someone as the system administrator does."""
    make_account(app, "root@pbx.example", system=True)
    with app.app_context():
        root, tenant = account_service.find("root@pbx.example"), tenant_service.find(domain)
        assert root is not None
        assert not isinstance(invitations.invite(tenant, email, role, by=root), Refusal)


def test_a_tenant_administrator(
    live_app: Flask, open_page: OpenPage, acme: str, shared_server: None, caught: Caught
) -> None:
    invite(live_app, acme, "admin@acme.example", ADMINISTRATOR)
    page = open_page("/demo/mail")
    walk = Walk(page)
    walk.open_link(caught("admin@acme.example"), "View the invitation")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Password").fill(PASSWORD)
    walk.press("Accept the invitation")
    walk.sees("1 of 4 steps done")
    walk.follow("Recipients")
    page.get_by_label("Add recipients").fill("Ops <ops@acme.example>; mailto:night@acme.example")
    walk.press("Add")
    walk.sees("The recipients are saved.")
    walk.choose("Notifications")
    walk.press("All on")
    expect(page.get_by_role("switch", name="When a queue call is lost")).to_be_checked()
    walk.choose("Overview")
    walk.follow("PBX key")
    page.get_by_label("Name").fill("Main PBX")
    walk.press("Issue a key")
    walk.sees("The key for Main PBX is filled in below.")
    walk.click(page.get_by_role("button", name="Send a sample event: When a queue call is lost"))
    walk.sees("The sample was sent to 2 people.")
    walk.follow("View it in the delivery log")
    walk.follow("When a queue call is lost")
    walk.sees("The mail server accepted it for everyone.")
    walk.took(clicks=12, pages=9)

    walk.choose("Templates")
    walk.follow("When a queue call is lost")
    expect(page.frame_locator("iframe").get_by_role("link", name="+442079460123").first).to_be_visible()
    walk.open_link(caught("ops@acme.example"), EVENT)
    walk.sees("The mail server accepted it for everyone.")
    walk.took(clicks=15, pages=12)


def test_who_connects_a_pbx(app: Flask, open_page: OpenPage, set_up_tenant: str) -> None:
    make_account(app, "pbx@acme.example", administers=set_up_tenant)
    page = open_page("/sign-in")
    walk = Walk(page)
    page.get_by_label("Email").fill("pbx@acme.example")
    page.get_by_label("Password").fill(PASSWORD)
    walk.press("Sign in")
    walk.follow("PBX key")
    page.get_by_label("Name").fill("Main PBX")
    walk.press("Issue a key")
    walk.sees("Waiting for the first event with the key Main PBX")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    walk.press("Copy the snippet for curl")
    snippet = page.evaluate("navigator.clipboard.readText()")
    run(snippet.replace("8000", ""))
    walk.sees("Wrong fields")
    run(snippet)
    walk.sees("Connected. The first event:")
    walk.follow("View it in the delivery log")
    expect(page.get_by_role("row").filter(has_text="+442079460123")).to_contain_text("Sent")
    walk.took(clicks=5, pages=4)

    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Help").click()
    guide = opened.value
    expect(guide).to_have_url(re.compile("#delivery-log$"))
    guide.get_by_role("link", name="All guides").click()
    guide.get_by_role("main").get_by_role("link", name="API reference").click()
    expect(guide.get_by_role("heading", name="When a queue call is lost").first).to_be_attached()


def test_a_recipient(
    live_app: Flask, open_page: OpenPage, set_up_tenant: str, key: str, portal_url: str, caught: Caught
) -> None:
    assert post_lost_call(portal_url, key, "+4930977001") == "sent"
    page = open_page("/demo/mail", width=360)
    walk = Walk(page)
    walk.open_link(caught("night@acme.example"), SETTINGS)
    page.get_by_label("Your email address").fill("night@acme.example")
    walk.press("Send the link")
    walk.sees("If night@acme.example is a recipient, a link is on its way there.")
    with live_app.app_context():  # as a worker does
        (tenant_id,) = retry.tenants_with_due()
        retry.retry_next(tenant_id)
    walk.open_link(caught("night@acme.example"), SETTINGS)
    walk.press("Pause")
    walk.sees("You get no emails until the pause ends.")
    walk.press("Resume emails")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_label("From").fill("22:00")
    page.get_by_label("Until").fill("06:00")
    for day in ("Sat", "Sun"):
        walk.click(page.get_by_label(day))
    with page.expect_navigation():  # reloading before the answer is on the page would break it off
        walk.press("Save")
    page.reload()
    expect(page.get_by_label("From")).to_have_value("22:00")
    walk.took(clicks=8, pages=3)


def test_a_new_user(open_page: OpenPage, set_up_tenant: str, portal_url: str, key: str, caught: Caught) -> None:
    user = {"extension_number": "1001", "extension_password": "k7-Vt-29", "email": "ana@acme.example"}
    assert post_event(portal_url, key, "user.created", user) == "sent"
    page = open_page("/demo/mail", width=360)
    walk = Walk(page)
    email = caught("ana@acme.example")
    (url,) = (url for url in links_in(email) if url.startswith(f"{portal_url}/provision/"))
    walk.open_link(email, url)
    walk.sees("Set up your phone")
    button = page.get_by_role("link", name="Open in Linphone")
    expect(button).to_have_attribute("href", f"linphone-config:{url}")
    walk.took(clicks=1, pages=2)
    assert page.request.get(url, headers={linphone.REQUEST_HEADER: "1"}).ok
    page.reload()
    walk.sees("This link has already been used")


def test_a_viewer(live_app: Flask, open_page: OpenPage, set_up_tenant: str, caught: Caught) -> None:
    invite(live_app, set_up_tenant, "viewer@acme.example", VIEWER)
    page = open_page("/demo/mail", width=360)
    walk = Walk(page)
    walk.open_link(caught("viewer@acme.example"), "View the invitation")
    page.get_by_label("Your name").fill("Vic")
    page.get_by_label("Password").fill(PASSWORD)
    walk.press("Accept the invitation")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    walk.click(page.get_by_text("Menu"))
    walk.click(page.get_by_role("link", name="Delivery log"))
    expect(page.get_by_role("heading", name="Delivery log")).to_be_visible()
    walk.took(clicks=4, pages=4)


def run(command: str) -> None:
    """Run a command as a shell of the PBX does."""
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, timeout=20)
