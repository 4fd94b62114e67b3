"""A mailbox that is connected in the browser: it sends, loses its access, and sends again after another sign-in."""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.notifications import recipients, settings
from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.deliveries.test_oauth_events import ValidTokens
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, key, post
from tests.token_server import CLIENT_ID, CLIENT_SECRET, DIRECTORY, TokenServer, running

__all__ = ["key", "post"]

PAGE = "/tenants/acme.example/mail-server"


@pytest.fixture
def token_server(live_app: Flask, portal_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """A token server that the operator's settings name, for the portal in the browser."""
    with running(TokenServer(redirect_uri=f"{portal_url}/oauth/callback")) as server:
        changed = live_app.extensions["settings"].model_copy(
            update={**server.settings, "microsoft_smtp_hosts": ("127.0.0.1",)}
        )
        monkeypatch.setitem(live_app.extensions, "settings", changed)
        yield server


@pytest.fixture
def mail_server(token_server: TokenServer) -> Iterator[SmtpPeer]:
    """A mail server that accepts the token server's tokens."""
    with SmtpPeer(mechanisms="XOAUTH2", accounts=ValidTokens(token_server)) as peer:
        yield peer


def save_mail_server(page: Page, port: int) -> None:
    page.get_by_label("SMTP Server Address").fill("127.0.0.1")
    page.get_by_label("SMTP Server Port").fill(str(port))
    page.get_by_label("Encryption").select_option(label="None")
    page.get_by_label("Authentication Mode").select_option(label="OAuth 2.0")
    page.get_by_label("Sender email").fill("pbx@acme.example")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("No mailbox is connected yet")).to_be_visible()


def connect(page: Page) -> None:
    page.get_by_role("link", name="Ways to connect").click()
    page.get_by_label("Client ID").fill(CLIENT_ID)
    page.get_by_label("Client secret").fill(CLIENT_SECRET)
    page.get_by_label("Directory (tenant) ID").fill(DIRECTORY)
    page.get_by_role("button", name="Save the app").click()
    page.get_by_role("link", name="Sign in with Microsoft").first.click()
    expect(page.get_by_text("Connected to Microsoft as pbx@acme.example.")).to_be_visible()


def prepare(app: Flask) -> None:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, PEOPLE)
        settings.set_enabled(tenant, EVENT_TYPES, on=True)


def test_a_mailbox_is_connected_loses_its_access_and_is_connected_again(
    sign_in: OpenPage, live_app: Flask, acme: str, token_server: TokenServer, mail_server: SmtpPeer, key: str
) -> None:
    prepare(live_app)
    page = sign_in("admin@acme.example", PAGE, administers=acme)
    save_mail_server(page, mail_server.port)
    assert_usable(page)
    connect(page)
    assert_usable(page)
    page.get_by_role("button", name="Send test email").click()
    steps = page.locator("#test-email-steps > li")
    expect(steps.first).to_contain_text("Access token")
    expect(steps.filter(has_text="Sign in")).to_contain_text("XOAUTH2 as pbx@acme.example")
    expect(page.get_by_text("the mail server accepted the test email")).to_be_visible()

    def report_event() -> str:
        body = {"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "101"}}
        answer = live_app.test_client().post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"})
        return str(answer.get_json()["status"])

    assert report_event() == "sent"
    token_server.revoke()
    with live_app.app_context():
        sql("UPDATE oauth_connections SET access_token_expires_at = now()")
        sql("UPDATE mail_servers SET saved_at = now()")  # so that no open session is used
    assert report_event() == "held"

    page.goto("/tenants/acme.example/overview")
    expect(page.get_by_text("1 email is held: the mailbox is not connected.").first).to_be_visible()
    page.get_by_role("link", name="Sign in again").first.click()
    expect(page.get_by_text("AADSTS700082").first).to_be_visible()
    assert_usable(page)
    page.get_by_role("link", name="Sign in again").click()
    expect(page.get_by_text("Connected to Microsoft as pbx@acme.example.")).to_be_visible()
    with live_app.app_context():
        assert send_due_emails() == 1
    assert len(mail_server.messages) == 3
    page.goto("/tenants/acme.example/overview")
    expect(page.get_by_text("Email is working")).to_be_visible()


def test_a_mailbox_is_connected_without_javascript(
    sign_in: OpenPage, chromium: Browser, portal_url: str, acme: str, mail_server: SmtpPeer
) -> None:
    cookies = sign_in("admin@acme.example", administers=acme).context.storage_state()
    with chromium.new_context(base_url=portal_url, java_script_enabled=False, storage_state=cookies) as context:
        page = context.new_page()
        page.goto(PAGE)
        save_mail_server(page, mail_server.port)
        connect(page)
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_text("No mailbox is connected yet")).to_be_visible()


@pytest.mark.parametrize("way", ["authorization_code", "client_credentials"])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_ways_to_connect_are_usable(
    sign_in: OpenPage, acme: str, mail_server: SmtpPeer, way: str, width: int
) -> None:
    page = sign_in("admin@acme.example", PAGE, administers=acme, width=width)
    save_mail_server(page, mail_server.port)
    page.goto(f"{PAGE}/oauth?way={way}")
    assert_usable(page)
