"""The test email: step by step, and as a page without JavaScript."""

from collections.abc import Iterator, Mapping
from threading import Event

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.dns_server import DnsServer, dns_server
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import peer

__all__ = ["dns_server", "peer"]

PAGE = "/tenants/acme.example/mail-server"


class StopsAtSender(Mapping[str, str]):
    """A script in which the reply to the sender waits until the test continues."""

    def __init__(self, actions: Mapping[str, str]) -> None:
        self.actions, self.continues = actions, Event()

    def __getitem__(self, step: str) -> str:
        if step == "mail":
            self.continues.wait(60)
        return self.actions[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self.actions)

    def __len__(self) -> int:
        return len(self.actions)


def fill_in(page: Page, port: int) -> None:
    page.goto(PAGE)
    page.get_by_label("SMTP Server Address").fill("127.0.0.1")
    page.get_by_label("SMTP Server Port").fill(str(port))
    page.get_by_label("Encryption").select_option(label="None")
    page.get_by_label("Authentication Mode").select_option(label="None")
    page.get_by_label("Sender email").fill("pbx@acme.example")


def test_steps_appear_while_it_runs(sign_in: OpenPage, acme: str, peer: SmtpPeer) -> None:
    peer.script = script = StopsAtSender({"rcpt": "550 5.1.1 no such user"})
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    fill_in(page, peer.port)
    page.get_by_role("button", name="Send test email").click()
    steps = page.locator("#test-email-steps > li")
    expect(steps.filter(has_text="Sender")).to_contain_text("In progress")
    expect(steps.filter(has_text="Greeting")).to_contain_text("220 peer.test ESMTP")
    expect(steps.last).to_contain_text("Not reached")
    expect(page.get_by_text("Sending the test email …")).to_be_visible()
    tops = steps.evaluate_all("all => all.map(each => each.offsetTop)")
    script.continues.set()

    said = page.get_by_role("status").filter(has_text="Connected, but a recipient was rejected.")
    expect(said).to_be_visible()
    expect(page.get_by_text("Sending the test email …")).to_be_hidden()
    assert steps.evaluate_all("all => all.map(each => each.offsetTop)")[:-1] == tops[:-1]  # nothing moved but the last
    expect(steps.filter(has_text="Recipient")).to_contain_text("correct the recipient's address")
    expect(page.get_by_role("button", name="Send test email")).to_be_focused()
    assert_usable(page)
    provider = page.get_by_role("combobox", name="Email Service Provider")
    provider.press("f")  # unlike a script, a key may move the page
    expect(provider).to_have_value("fastmail")
    expect(said).to_have_count(0)  # it was not about this provider
    expect(steps).to_have_count(0)


@pytest.fixture
def plain(sign_in: OpenPage, chromium: Browser, acme: str, portal_url: str) -> Iterator[Page]:
    """A page in the browser of Acme's administrator, without JavaScript."""
    cookies = sign_in("admin@acme.example", administers=acme).context.storage_state()
    with chromium.new_context(base_url=portal_url, java_script_enabled=False, storage_state=cookies) as context:
        yield context.new_page()


def test_without_javascript_the_result_is_a_page(plain: Page, peer: SmtpPeer) -> None:
    fill_in(plain, peer.port)
    plain.get_by_role("button", name="Send test email").click()
    expect(plain.get_by_text("the mail server accepted the test email for admin@acme.example")).to_be_visible()
    expect(plain.locator("#test-email-steps > li").last).to_contain_text("queued as 4711")


def test_without_javascript_a_button_fills_in_a_providers_settings(plain: Page) -> None:
    plain.goto(PAGE)
    plain.get_by_role("combobox", name="Email Service Provider").select_option(label="SendGrid")
    plain.get_by_role("button", name="Fill in").click()
    expect(plain.get_by_label("SMTP Server Address")).to_have_value("smtp.sendgrid.net")
    expect(plain.get_by_label("Username")).to_have_value("apikey")
    plain.get_by_label("Password").fill("secret")
    plain.get_by_label("Sender email").fill("pbx@acme.example")
    plain.get_by_role("button", name="Save", exact=True).click()
    expect(plain.get_by_text("The settings are saved.")).to_be_visible()
    expect(plain.get_by_role("combobox", name="Email Service Provider")).to_have_value("sendgrid")


def test_a_provider_fills_in_its_settings(sign_in: OpenPage, acme: str) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    page.goto(PAGE)
    page.get_by_role("combobox", name="Email Service Provider").select_option(label="SendGrid")
    expect(page.get_by_label("Username")).to_have_value("apikey")
    expect(page.get_by_label("SMTP Server Address")).to_have_value("smtp.sendgrid.net")
    page.get_by_role("combobox", name="Email Service Provider").select_option(label="Fastmail")
    expect(page.get_by_label("SMTP Server Port")).to_have_value("465")
    expect(page.get_by_label("Encryption")).to_have_value("tls")
    expect(page.get_by_text("Password: an app password.")).to_be_visible()


def test_the_providers_regions_are_a_choice(sign_in: OpenPage, acme: str) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    page.goto(PAGE)
    page.get_by_role("combobox", name="Email Service Provider").press("a")  # unlike a script, a key may move the page
    expect(page.get_by_role("combobox", name="Region")).to_have_value("email-smtp.us-east-1.amazonaws.com")
    expect(page.locator(".htmx-added, .htmx-settling, .htmx-request")).to_have_count(0)
    page.get_by_role("combobox", name="Region").press("ArrowDown")
    expect(page.get_by_label("SMTP Server Address")).to_have_value("email-smtp.us-east-2.amazonaws.com")
    expect(page.get_by_role("combobox", name="Region")).to_be_focused()
    assert_usable(page)


def test_typing_an_email_suggests_its_provider(sign_in: OpenPage, acme: str, dns_server: DnsServer) -> None:
    dns_server.add("acme.com", "MX", "0 acme-com.mail.protection.outlook.com.")
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    page.goto(PAGE)
    page.get_by_label("Password").fill("secret")
    page.get_by_label("Sender email").fill("pbx@acme.com")
    page.get_by_label("Sender email").press("Tab")
    expect(page.get_by_text("This looks like Microsoft 365.")).to_be_visible()
    expect(page.get_by_label("SMTP Server Address")).to_have_value("")
    assert_usable(page)
    page.get_by_role("button", name="Use its settings").click()
    expect(page.get_by_label("SMTP Server Address")).to_have_value("smtp.office365.com")
    expect(page.get_by_label("Username")).to_have_value("pbx@acme.com")
    expect(page.get_by_label("Password")).to_have_value("secret")
    expect(page.get_by_label("Sender email")).to_have_value("pbx@acme.com")
    expect(page.get_by_role("combobox", name="Email Service Provider")).to_be_focused()
    expect(page.get_by_text("This looks like Microsoft 365.")).to_have_count(0)
    expect(page.get_by_label("Authentication Mode")).to_have_value("oauth")
    assert_usable(page)


def test_the_senders_domain_is_checked_below_the_steps(
    sign_in: OpenPage, acme: str, peer: SmtpPeer, dns_server: DnsServer
) -> None:
    dns_server.add("acme.com", "MX", "0 acme-com.mail.protection.outlook.com.")
    dns_server.add_text("acme.com", "v=spf1 include:spf.protection.outlook.com -all")
    dns_server.add_text("spf.protection.outlook.com", "v=spf1 ip4:40.92.0.0/15 -all")
    page = sign_in("admin@acme.example", administers=acme)
    page.get_by_role("button", name="OK").click()
    fill_in(page, peer.port)
    page.get_by_label("Sender email").fill("pbx@acme.com")
    page.get_by_role("button", name="Send test email").click()
    rows = page.locator("#test-email-steps > li")
    expect(rows.filter(has_text="SPF acme.com")).to_contain_text("does not name this mail server")
    expect(rows.filter(has_text="DMARC _dmarc.acme.com")).to_contain_text("v=DMARC1; p=none")
    expect(page.get_by_text("the mail server accepted the test email")).to_be_visible()
    assert_usable(page)
