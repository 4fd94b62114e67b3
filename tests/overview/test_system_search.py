"""The search of system administrators: what it finds, for whom, and with any input."""

from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.notifications import recipients
from portal.tenants import service as tenant_service
from tests.conftest import SignIn
from tests.overview.page_text import page_text
from tests.sql import sql
from tests.tenant_fixtures import Post

SEARCH = "/system/search"


def found(browser: FlaskClient, text: str) -> str:
    answer = browser.get(SEARCH, query_string={"q": text})
    assert answer.status_code == 200
    return unescape(answer.get_data(as_text=True).partition('<main id="main"')[2])


def test_events_are_found_by_all_their_ids(system: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    external_id = "Call 1699.1@pbx"
    post(id=external_id)
    with app.app_context():
        ((event_id, message_id),) = sql("SELECT event_id, message_id FROM deliveries")
    link = f'href="/tenants/{working_tenant}/deliveries/{event_id}"'
    bare = message_id.strip("<>")
    for text in (external_id, f" {external_id} ", message_id, bare, bare.partition("@")[0].upper(), str(event_id)):
        assert link in found(system, text), text
    assert link in found(system, f"Message-ID: {message_id}")
    for text in (external_id[:-1], external_id.lower(), bare[:-1][1:], "0" * 32, "<>", "@"):
        assert "Nothing found" in found(system, text), text


def test_people_are_found_by_email(
    system: FlaskClient, post: Post, working_tenant: str, globex: str, app: Flask, sign_in: SignIn
) -> None:
    post()
    sign_in("ops@acme.example", administers=globex)
    with app.app_context():
        tenant = tenant_service.find(globex)
        assert tenant
        enter_scope(tenant.id)
        recipients.replace(tenant, ["Boss@globex.example", "ops@acme.example"])
    page = found(system, "Ops <OPS@ACME.example>")
    accounts, in_recipients = page.partition("found-accounts")[2].split("found-recipients", 1)
    assert f'<a href="/tenants/{globex}/people">Globex</a>' in accounts
    assert f'href="/tenants/{globex}/recipients">ops@acme.example' in in_recipients
    assert f'href="/tenants/{working_tenant}/recipients">ops@acme.example' in in_recipients
    emails = in_recipients.partition("found-emails")[2]
    assert emails.count(f'href="/tenants/{working_tenant}/deliveries/') == 1
    assert "Sent" in emails
    assert f'href="/tenants/{globex}/recipients"' in found(system, "Boss@globex.example")
    assert "System administrator" in found(system, "root@pbx.example")


def test_tenants_are_found_by_parts(system: FlaskClient, app: Flask, acme: str) -> None:
    with app.app_context():
        for number in range(11):
            tenant_service.add(f"Customer {number}", f"c{number}.example", "UTC")
    assert f'href="/tenants/{acme}/"' in found(system, "CME")
    page = found(system, "customer")
    assert page.count('href="/tenants/c') == 10
    assert 'href="/system/tenants?q=customer">Show all 11 tenants' in page


@pytest.mark.parametrize(
    "text", ["x" * 200, "%", "_", "\\", "'", "<b>", "a@b@c", "é@ü.example", "x" * 190 + "@a.example"]
)
def test_any_input_is_answered(system: FlaskClient, acme: str, text: str) -> None:
    assert "Nothing found" in found(system, text)


def test_what_cannot_be_searched_is_marked(system: FlaskClient) -> None:
    for text in ("a\0b", "x" * 999, "a\nb"):
        answer = system.get(SEARCH, query_string={"q": text})
        assert answer.status_code == 422
        assert "Search not run" in answer.get_data(as_text=True)
    assert "Nothing found" not in page_text(system, SEARCH)


def test_it_is_on_each_page_of_a_system_administrator_only(
    system: FlaskClient, admin: FlaskClient, acme: str, client: FlaskClient
) -> None:
    for page in ("/system/overview", f"/tenants/{acme}/recipients"):
        assert f'action="{SEARCH}"' in system.get(page).get_data(as_text=True)
    assert SEARCH not in admin.get(f"/tenants/{acme}/recipients").get_data(as_text=True)
    assert admin.get(f"{SEARCH}?q={acme}").status_code == 404
    assert client.get(f"{SEARCH}?q={acme}").status_code == 302
