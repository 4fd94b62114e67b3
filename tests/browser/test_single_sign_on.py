"""Signing in at a provider in the browser: with the portal's own code, without access, and with passwords off."""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import expect

from portal.accounts import service as account_service
from portal.accounts.single_sign_on import provider as portal_provider
from tests.authenticator import Authenticator
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.conftest import make_account
from tests.openid_provider import OpenIdProvider, running
from tests.pages import PASSWORD


@pytest.fixture
def provider(live_app: Flask, portal_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenIdProvider]:
    """An OpenID provider that the operator's settings name, for the portal in the browser. Passwords are off."""
    for cache in ("_documents", "_silent_until"):
        monkeypatch.setattr(portal_provider, cache, {})
    with running(OpenIdProvider(redirect_uri=f"{portal_url}{portal_provider.REDIRECT_PATH}")) as server:
        changed = live_app.extensions["settings"].model_copy(update={**server.settings, "sso_only": True})
        monkeypatch.setitem(live_app.extensions, "settings", changed)
        yield server


def test_a_person_signs_in_at_the_provider(
    open_page: OpenPage, live_app: Flask, acme: str, provider: OpenIdProvider, portal_url: str
) -> None:
    make_account(live_app, "admin@acme.example", administers=acme)
    make_account(live_app, "root@pbx.example", system=True)
    with live_app.app_context():
        root = account_service.find("root@pbx.example")
        assert root is not None
        account_service.set_break_glass(root, True)

    page = open_page("/tenants/acme.example/keys")
    expect(page.get_by_text("Emergency sign-in")).to_be_visible()
    assert_usable(page)
    page.get_by_role("link", name="Sign in with Acme ID").click()
    expect(page).to_have_url(f"{portal_url}/tenants/acme.example/keys")

    page.goto("/account")
    expect(page.get_by_text("You sign in with Acme ID.")).to_be_visible()
    page.get_by_role("link", name="Set up").click()
    page.get_by_label("Code from the app").wait_for()
    phone = Authenticator(page.content())
    page.get_by_label("Code from the app").fill(phone.code(-1))
    page.get_by_role("button", name="Turn on").click()
    page.locator("#recovery-codes").wait_for()
    page.goto("/account")
    assert_usable(page)
    page.get_by_role("button", name="Sign out").last.click()
    page.get_by_role("link", name="Sign in with Acme ID").click()
    page.get_by_label("Code from the app").fill(phone.code())
    with page.expect_navigation():
        page.get_by_role("button", name="Sign in").click()
    page.goto("/account")
    page.get_by_role("button", name="Sign out").last.click()

    provider.subject, provider.email = "person-2", "nobody@acme.example"
    page.get_by_role("link", name="Sign in with Acme ID").click()
    expect(page.get_by_role("heading", name="You do not have access")).to_be_visible()
    assert_usable(page)
    page.get_by_role("link", name="Back to sign in").click()
    page.get_by_text("Emergency sign-in").click()
    page.get_by_label("Email address").fill("root@pbx.example")
    page.get_by_label("Password").fill(PASSWORD)
    assert_usable(page)
    with page.expect_navigation():
        page.get_by_role("button", name="Sign in", exact=True).click()
    page.goto("/system/sign-in")
    expect(page.get_by_text("Only of break-glass accounts")).to_be_visible()
    assert_usable(page)
