"""The first steps of a new tenant: what is done, what is next, and when they are gone."""

from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.mail_servers import settings as mail_server_settings
from portal.notifications import recipients, switches
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.overview.reading import words
from tests.overview.test_tenant import PAGE
from tests.ready import Post, entered
from tests.smtp_peer import SmtpPeer
from tests.sql import sql


def scope(domain: str) -> Tenant:
    tenant = directory.find(domain)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def next_step(browser: FlaskClient) -> str:
    """Return the name of the step that stands out, empty where none does."""
    page = browser.get(PAGE).get_data(as_text=True).partition('class="to_do next"')[2]
    return page.partition('id="step-')[2].partition('"')[0]


def test_one_after_the_other_until_they_are_gone(
    admin: FlaskClient, app: Flask, acme: str, peer: SmtpPeer, client: FlaskClient
) -> None:
    assert "First steps 0 of 4 done" in words(admin, PAGE)
    assert "No mail can be sent" not in words(admin, PAGE), "the step says it"
    assert "Needs attention" not in words(admin, PAGE)
    assert next_step(admin) == "mail-server"
    with app.app_context():
        mail_server_settings.save(scope(acme).id, entered(peer.port))
    assert "Your own: 127.0.0.1." in words(admin, PAGE)
    assert next_step(admin) == "recipients"
    with app.app_context():
        recipients.replace(scope(acme), ["ops@acme.example", "night@acme.example"])
    assert "ops@acme.example and 1 more." in words(admin, PAGE)
    assert next_step(admin) == "events"
    with app.app_context():
        switches.turn(scope(acme), ["queue.call_lost"], on=True)
    assert "1 of 5 are switched on." in words(admin, PAGE)
    assert next_step(admin) == "key"
    with app.app_context():
        secret = keys.issue(scope(acme), "Main PBX").secret
    page = admin.get(PAGE).get_data(as_text=True)
    assert "Key “Main PBX” is issued. Waiting for the first event." in page
    assert "hx-get" in page, "it looks for the first event"
    assert next_step(admin) == ""
    assert "3 of 4 done" in words(admin, PAGE)
    body = {"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "7001"}}
    assert client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert "First steps" not in words(admin, PAGE)


def test_a_shared_server_is_a_step_that_is_done(admin: FlaskClient, app: Flask, acme: str) -> None:
    with app.app_context():
        mail_server_settings.save(None, entered(2525))
        mail_server_settings.share(True)
    page = words(admin, PAGE)
    assert "1 of 4 done" in page
    assert "The system administrator's mail server is used." in page
    assert "Ready: no mail sent yet" in page


def test_an_event_of_the_systems_pbx_counts_too(admin: FlaskClient, app: Flask, acme: str, system_key: str) -> None:
    body = {"type": "queue.call_lost", "tenant": acme, "data": {"queue_number": "8000", "caller_number": "7001"}}
    headers = {"Authorization": f"Bearer {system_key}"}
    assert app.test_client().post("/api/v1/events", json=body, headers=headers).status_code == 200
    assert "The first event has arrived." in words(admin, PAGE)


def test_who_has_sent_mail_before_takes_no_first_steps(admin: FlaskClient, app: Flask, ready: str, post: Post) -> None:
    post()
    with app.app_context():
        sql("DELETE FROM recipients")
    page = words(admin, PAGE)
    assert "First steps" not in page
    assert "There are no recipients." in page
