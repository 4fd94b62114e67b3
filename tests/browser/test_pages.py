"""Every page as Chromium shows it: no fault that axe-core finds, light and dark, from a phone's width to a desktop's."""

import pytest
from flask import Flask

from tests.browser.conftest import OpenPage, assert_usable

STRANGERS = ("/sign-in", "/forgotten-password", "/nothing-is-here", "/provision/spent-or-never-made")
SYSTEM = (
    "/system/tenants",
    "/system/tenants?q=nobody",
    "/system/tenants/new",
    "/system/tenants/acme.example",
    "/system/mail-server",
    "/account/password",
)
TENANT = (
    "/tenants/acme.example/deliveries",
    "/tenants/acme.example/mail-server",
    "/tenants/acme.example/notifications",
    "/tenants/acme.example/keys",
)
NO_PAGES = {
    "health.healthz",
    "webhook.openapi",
    "tenants.home",
    "tenants.enter",
    "security.reset_password",
    "security.verify",
}


@pytest.mark.parametrize("path", STRANGERS)
def test_a_page_for_strangers(open_page: OpenPage, path: str) -> None:
    assert_usable(open_page(path))


@pytest.mark.parametrize("path", SYSTEM)
def test_a_page_of_the_system(sign_in: OpenPage, acme: str, path: str) -> None:
    page = sign_in("root@pbx.example", system=True)
    page.goto(path)
    assert_usable(page)


@pytest.mark.parametrize("path", TENANT)
def test_a_page_of_a_tenant(sign_in: OpenPage, acme: str, path: str) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    page.goto(path)
    assert_usable(page)


def test_the_choice_between_tenants(sign_in: OpenPage, acme: str, globex: str) -> None:
    sign_in("both@x.example", administers=acme)
    page = sign_in("both@x.example", administers=globex)
    page.goto("/")
    assert_usable(page)


def test_every_page_is_here(live_app: Flask) -> None:
    adapter = live_app.url_map.bind("portal.test")
    seen = {adapter.match(path.partition("?")[0])[0] for path in (*STRANGERS[:2], *SYSTEM, *TENANT)} | {
        "provisioning.provision"
    }
    pages = {
        rule.endpoint
        for rule in live_app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and "static" not in rule.endpoint
    }
    assert pages - NO_PAGES == seen
