"""Every page in Chromium: axe-core finds no fault, light or dark, and it fits from a phone to a desktop."""

import pytest
from flask import Flask

from portal.demo.mailbox import Mailbox
from tests.browser.conftest import OpenPage, assert_usable
from tests.demo.mails import mail

STRANGERS = ("/sign-in", "/forgotten-password", "/nothing-is-here", "/provision/spent-or-never-made")
SYSTEM = (
    "/system/tenants",
    "/system/tenants?q=nobody",
    "/system/tenants/new",
    "/system/tenants/acme.example",
    "/system/mail-server",
    "/system/audit",
    "/system/audit?person=nobody&since=nonsense",
    "/account/password",
)
TENANT = (
    "/tenants/acme.example/deliveries",
    "/tenants/acme.example/mail-server",
    "/tenants/acme.example/notifications",
    "/tenants/acme.example/keys",
    "/tenants/acme.example/audit",
)
# Checked above in other words, or no page of ours.
ELSEWHERE = {
    "audit.system_csv",
    "audit.tenant_csv",
    "demo.html",
    "demo.inbox",
    "demo.mail",
    "demo.part",
    "health.healthz",
    "provisioning.provision",
    "security.reset_password",
    "security.verify",
    "tenants.enter",
    "tenants.home",
    "webhook.openapi",
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


def test_caught_mail(open_page: OpenPage, mailbox: Mailbox) -> None:
    assert_usable(open_page("/demo/mail"))
    mailbox.add(mail('<html lang="en"><head><title>x</title></head><img alt="QR" src="cid:qr@x.example">').as_bytes())
    page = open_page("/demo/mail")
    assert_usable(page)
    page.get_by_role("link", name="Hello & welcome").click()
    assert page.frame_locator("iframe").get_by_role("img").evaluate("image => image.naturalWidth") == 1
    assert_usable(page)


def test_every_page_is_here(live_app: Flask) -> None:
    rules = live_app.url_map.iter_rules()
    pages = {rule.endpoint for rule in rules if "GET" in (rule.methods or ()) and "static" not in rule.endpoint}
    router = live_app.url_map.bind("portal.test")
    seen = {router.match(path.partition("?")[0])[0] for path in ("/sign-in", "/forgotten-password", *SYSTEM, *TENANT)}
    assert pages - seen == ELSEWHERE
