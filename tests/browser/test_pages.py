"""Every page in Chromium: axe-core finds nothing, light and dark, from phone to desktop."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from sqlalchemy import delete

from portal.accounts import service as account_service
from portal.accounts.models import AccountSession
from portal.database.scope import enter_scope
from portal.demo.mailbox import Mailbox
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_templates import versions
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.authenticator import Authenticator
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.conftest import make_account
from tests.demo.example_email import mail
from tests.pages import PASSWORD
from tests.people.example_people import account_with, invite
from tests.signing import post_body

STRANGERS = (
    "/api/reference",
    "/help/connecting-a-pbx",
    "/provision/sample",
    "/sign-in",
    "/forgotten-password",
    "/nothing-is-here",
    "/provision/spent-or-never-made",
)
# The pages that one test opens one after the other, by what they are about.
SYSTEM = {
    "overview": ("/system/overview", "/system/search", "/system/search?q=acme"),
    "tenants": (
        "/system/tenants",
        "/system/tenants?q=nobody",
        "/system/tenants/new",
        "/system/tenants/import",
    ),
    "tenant": (
        "/system/tenants/acme.example",
        "/system/tenants/acme.example/next-steps",
        "/system/tenants/acme.example/suspend",
        "/system/tenants/acme.example/export",
        "/system/tenants/acme.example/delete",
    ),
    "people": ("/system/people", "/system/people?q=nobody", "/system/people/invite", "/system/people/1"),
    "settings": ("/system/mail-server", "/system/keys", "/system/sign-in"),
    "audit": ("/system/audit", "/system/audit?actor=nobody&since=nonsense"),
    "account": (
        "/account",
        "/account/confirm",
        "/account/password",
        "/account/name",
        "/account/email",
        "/account/two-factor",
    ),
    "help": ("/help/", "/help/performance"),
}
TENANT = {
    "overview": (
        "/tenants/acme.example/overview",
        "/tenants/acme.example/deliveries",
        "/tenants/acme.example/deliveries?q=nobody&queue=8000&since=2026-11-01",
        "/tenants/acme.example/deliveries?since=nonsense",
        "/tenants/acme.example/audit",
    ),
    "settings": (
        "/tenants/acme.example/mail-server",
        "/tenants/acme.example/recipients",
        "/tenants/acme.example/notifications",
        "/tenants/acme.example/people/invite",
    ),
    "templates": (
        "/tenants/acme.example/templates",
        "/tenants/acme.example/templates/user.created",
        "/tenants/acme.example/templates/queue.call_lost?version=default",
        "/tenants/acme.example/appearance",
    ),
    "connect": (
        "/tenants/acme.example/connect",
        "/tenants/acme.example/connect?pbx=portsip",
        "/tenants/acme.example/keys",
    ),
}
# Checked above in other words, or no page of ours.
ELSEWHERE = {
    "account.kept_form",  # below
    *("account.show_email_change", "invitation.show"),  # below
    "branding.email",
    "audit.csv",
    "system_mail_server.stop_sharing",  # in test_tenants.py
    "tenants.csv",
    "deliveries.csv",
    "deliveries.event",  # in test_deliveries.py
    "deliveries.updates",
    "email_settings.own",  # in test_recipients.py
    "email_settings.unsubscribe",
    "recipients.edit_recipient",
    "demo.html",
    "demo.inbox",
    "demo.email",
    "demo.part",
    "health.readyz",
    "doctor.show_request",
    "metrics.metrics",
    "mail_templates.html",
    "oauth.show",  # in test_oauth.py
    "oauth.sign_in",
    "oauth_redirect.finish_sign_in",
    "system_oauth.show",
    "system_oauth.sign_in",
    "connect.status",
    "provisioning.provision",
    "security.mf_recovery",
    "security.mf_recovery_codes",
    "security.reset_password",
    "security.tf_select",
    "security.two_factor_rescue",
    "security.two_factor_setup",
    "security.two_factor_token_validation",
    "single_sign_on.begin",  # in test_single_sign_on.py
    "single_sign_on.finish",
    "tenants.enter",
    "tenants.home",
    "webhook.openapi",
}


@pytest.mark.parametrize("path", STRANGERS)
def test_public_page(open_page: OpenPage, path: str) -> None:
    assert_usable(open_page(path))


@pytest.mark.parametrize("subject", SYSTEM)
def test_system_pages(sign_in: OpenPage, acme: str, subject: str, subtests: pytest.Subtests) -> None:
    page = sign_in("root@pbx.example", system=True)
    _assert_all_usable(page, SYSTEM[subject], subtests)


@pytest.mark.parametrize("subject", TENANT)
def test_tenant_pages(sign_in: OpenPage, acme: str, subject: str, subtests: pytest.Subtests) -> None:
    page = sign_in("admin@acme.example", administers=acme)
    _assert_all_usable(page, TENANT[subject], subtests)


def _assert_all_usable(page: Page, paths: Iterable[str], subtests: pytest.Subtests) -> None:
    for path in paths:
        with subtests.test(path):
            page.goto(path)
            assert_usable(page)


def test_keys_and_rejected_requests(sign_in: OpenPage, app: Flask, acme: str, client: FlaskClient) -> None:
    with app.app_context():
        tenant, today = tenant_service.find(acme), datetime.now(UTC).date()
        issued = [api_keys.issue(tenant, "Main PBX", today + timedelta(days=days), signed=True) for days in (3, 90)]
        api_keys.revoke(api_keys.issue(tenant, "A name that is long enough to need another line on a phone").row)
    assert post_body(client, issued[0].secret, {}).status_code == 401
    page = sign_in("admin@acme.example", "/tenants/acme.example/keys", administers=acme)
    page.get_by_text("Rotate").first.click()
    assert_usable(page)


def test_a_form_whose_session_has_ended_is_kept(sign_in: OpenPage, app: Flask, acme: str) -> None:
    page = sign_in("admin@acme.example", "/tenants/acme.example/mail-server", administers=acme)
    if page.get_by_role("button", name="OK").is_visible():
        page.get_by_role("button", name="OK").click()
    page.get_by_label("Emails of Recipients").fill("a@acme.example")
    with app.app_context():
        db.session.execute(delete(AccountSession))
        db.session.commit()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Sign in again: your changes were kept.")).to_be_visible()
    page.get_by_label("Email").fill("admin@acme.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Your changes were kept")).to_be_visible()
    assert_usable(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Emails of Recipients")).to_have_value("a@acme.example")


def test_a_template_with_versions(sign_in: OpenPage, app: Flask, acme: str) -> None:
    kind, last = EVENT_TYPES["user.created"], None
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        for words in ("One", "A subject that is long enough to need another line on a phone and on a tablet too"):
            saved = versions.save_version(
                tenant, kind, TemplateSource(TemplateFormat.HTML, words, "<p>%%NOBODY%%</p>"), last
            )
            assert isinstance(saved, MailTemplate)
            last = saved.id
    page = sign_in("admin@acme.example", administers=acme)
    for path in ("", "/user.created", "/user.created?version=default"):
        page.goto(f"/tenants/acme.example/templates{path}")
        assert_usable(page)


def test_the_choice_between_tenants(sign_in: OpenPage, acme: str, globex: str) -> None:
    sign_in("both@x.example", administers=acme)
    assert_usable(sign_in("both@x.example", administers=globex))


def test_the_second_factor(sign_in: OpenPage) -> None:
    page = sign_in("root@pbx.example", system=True)
    page.get_by_text("root@pbx.example").first.click()
    page.get_by_role("link", name="Your account").first.click()
    page.get_by_role("link", name="Set up").click()
    page.get_by_label("Code").wait_for()
    phone = Authenticator(page.content())
    page.get_by_label("Code").fill(phone.code(-1))
    page.get_by_role("button", name="Turn on").click()
    codes = page.locator("#recovery-codes").inner_text().split()
    assert_usable(page)
    page.get_by_role("link", name="I have saved the codes").click()
    page.locator("#recovery-codes").wait_for(state="detached")
    assert_usable(page)
    with page.expect_navigation():
        page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_label("Email").fill("root@pbx.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Use a recovery code").wait_for()
    assert_usable(page)
    page.get_by_role("link", name="Use a recovery code").click()
    page.get_by_role("link", name="Use a recovery code").wait_for(state="detached")
    assert_usable(page)
    page.get_by_label("Code").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/system/overview")


def test_people(sign_in: OpenPage, open_page: OpenPage, app: Flask, acme: str) -> None:
    make_account(app, "second@acme.example", administers=acme)
    with app.app_context():
        account_service.set_name(account_with("second@acme.example"), "Wolfeschlegelsteinhausenbergerdorff" * 2)
    page = sign_in("admin@acme.example", administers=acme)
    links = [
        invite(app, acme, f"{'long.' * number}name@acme.example", "viewer", "admin@acme.example") for number in (1, 10)
    ]
    page.goto("/tenants/acme.example/people")
    assert_usable(page)
    page.get_by_role("link", name="Wolfe").click()
    page.locator("summary", has_text="Deactivate").click()
    assert_usable(page)
    page.reload()
    page.locator("summary", has_text="Deactivate").click()
    page.get_by_role("button", name="Confirm").locator("visible=true").click()
    page.get_by_text("is deactivated and signed out").wait_for()
    assert_usable(page)
    for path in ("/invitations/gone", "/account/email/confirm/gone"):
        assert_usable(open_page(path))
    page = open_page(links[1])
    assert_usable(page)
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Accept").click()
    page.wait_for_url("**/tenants/acme.example/overview")
    assert_usable(page)
    page.goto("/tenants/acme.example/deliveries")
    assert_usable(page)


def test_captured_email(open_page: OpenPage, mailbox: Mailbox) -> None:
    assert_usable(open_page("/demo/mail"))
    mailbox.add(mail('<html lang="en"><head><title>x</title></head><img alt="QR" src="cid:qr@x.example">').as_bytes())
    page = open_page("/demo/mail")
    assert_usable(page)
    page.get_by_role("link", name="Hello & welcome").click()
    image = page.frame_locator("iframe").get_by_role("img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1  # once it has loaded
    assert_usable(page)


def test_every_page_is_listed(live_app: Flask) -> None:
    rules = live_app.url_map.iter_rules()
    pages = {rule.endpoint for rule in rules if "GET" in (rule.methods or ()) and "static" not in rule.endpoint}
    router = live_app.url_map.bind("portal.test")
    paths = chain(("/sign-in", "/forgotten-password", "/api/reference"), *SYSTEM.values(), *TENANT.values())
    seen = {router.match(path.partition("?")[0])[0] for path in paths}
    assert pages - seen == ELSEWHERE
