"""The first steps of a new tenant: what is done, what is next, and when they are gone."""

from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.overview.page_text import page_text
from tests.overview.test_tenant import PAGE
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, entered


def scope(domain: str) -> Tenant:
    tenant = tenant_service.find(domain)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def next_step(browser: FlaskClient) -> str:
    """Return the name of the highlighted step, or ""."""
    page = browser.get(PAGE).get_data(as_text=True).partition('class="to_do next"')[2]
    return page.partition('id="step-')[2].partition('"')[0]


def test_steps_are_done_one_by_one_until_the_checklist_disappears(
    admin: FlaskClient, app: Flask, acme: str, peer: SmtpPeer, client: FlaskClient
) -> None:
    assert "First steps 0 of 4 steps done" in page_text(admin, PAGE)
    assert "Email cannot be sent" not in page_text(admin, PAGE), "the step says it"
    assert "Needs attention" not in page_text(admin, PAGE)
    assert next_step(admin) == "mail-server"
    with app.app_context():
        mail_server_settings.save(scope(acme).id, entered(peer.port))
    assert "Your own server: 127.0.0.1." in page_text(admin, PAGE)
    assert next_step(admin) == "recipients"
    with app.app_context():
        recipients.replace(scope(acme), ["ops@acme.example", "night@acme.example"])
    assert "ops@acme.example and 1 more." in page_text(admin, PAGE)
    assert next_step(admin) == "events"
    with app.app_context():
        settings.set_enabled(scope(acme), ["queue.call_lost"], on=True)
    assert "1 of 5 are on." in page_text(admin, PAGE)
    assert next_step(admin) == "key"
    with app.app_context():
        secret = api_keys.issue(scope(acme), "Main PBX").secret
    page = admin.get(PAGE).get_data(as_text=True)
    assert "Key “Main PBX” was issued. Waiting for the first event." in page
    assert "hx-get" in page, "it looks for the first event"
    assert next_step(admin) == ""
    assert "3 of 4 steps done" in page_text(admin, PAGE)
    body = {"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "7001"}}
    assert client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert "First steps" not in page_text(admin, PAGE)


def test_a_shared_server_completes_the_step(admin: FlaskClient, app: Flask, acme: str) -> None:
    with app.app_context():
        mail_server_settings.save(None, entered(2525))
        mail_server_settings.share(True)
    page = page_text(admin, PAGE)
    assert "1 of 4 steps done" in page
    assert "The system administrator's mail server is used." in page
    assert "Ready: no email sent yet" in page


def test_an_event_with_a_system_key_counts(admin: FlaskClient, app: Flask, acme: str, system_key: str) -> None:
    body = {"type": "queue.call_lost", "tenant": acme, "data": {"queue_number": "8000", "caller_number": "7001"}}
    headers = {"Authorization": f"Bearer {system_key}"}
    assert app.test_client().post("/api/v1/events", json=body, headers=headers).status_code == 200
    assert "The first event has arrived." in page_text(admin, PAGE)


def test_a_tenant_that_has_sent_email_sees_no_checklist(
    admin: FlaskClient, app: Flask, working_tenant: str, post: Post
) -> None:
    post()
    with app.app_context():
        sql("DELETE FROM recipients")
    page = page_text(admin, PAGE)
    assert "First steps" not in page
    assert "There are no recipients." in page
