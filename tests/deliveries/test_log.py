"""The delivery log as the tenant's administrator reads it."""

import re

from flask import Flask
from flask.testing import FlaskClient

from portal.web import pagination
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post


def shown(browser: FlaskClient, address: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", browser.get(address).get_data(as_text=True)))


def test_it_shows_the_mail_servers_own_words(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such <b>user</b>"]}
    post()
    page = admin.get(f"/tenants/{working_tenant}/deliveries").get_data(as_text=True)
    for words in (
        *PEOPLE,
        "When a queue call is lost",
        "queued as 4711",
        "550 5.1.1 no such &lt;b&gt;user&lt;/b&gt;",
        "Partly sent",
    ):
        assert words in page


def test_it_shows_why_a_mail_waits_or_never_was(
    admin: FlaskClient, app: Flask, post: Post, working_tenant: str
) -> None:
    post("queue.sla_breached", {"queue_number": "8000", "caller_number": "1", "sla_seconds": 60})
    with app.app_context():
        sql("UPDATE deliveries SET status = 'held', reason = 'no_mail_server'")
        sql("UPDATE delivery_recipients SET status = 'held'")
        sql("DELETE FROM notification_settings")
    post()
    page = shown(admin, f"/tenants/{working_tenant}/deliveries")
    assert "No mail server is set up." in page
    assert "This event is switched off." in page


def test_no_secret_is_in_it(admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    user = {"extension_number": "1001", "extension_password": "s3cr3t-of-ana", "email": "ana@acme.example"}
    peer.script = {"dot": "554 5.7.1 no"}
    post("user.created", user)
    page = admin.get(f"/tenants/{working_tenant}/deliveries").get_data(as_text=True)
    assert "Extension 1001" in page
    assert "ana@acme.example" in page
    assert "s3cr3t" not in page


def test_it_goes_on_by_key_and_shows_each_event_once(admin: FlaskClient, post: Post, working_tenant: str) -> None:
    count = pagination.PAGE_SIZE + 3
    for number in range(count):
        post(data={"queue_number": "8000", "caller_number": f"7{number:03}"})
    first = admin.get(f"/tenants/{working_tenant}/deliveries").get_data(as_text=True)
    older = re.search(r'href="([^"]*before=[^"]*)"', first)
    assert older is not None
    second = admin.get(older[1]).get_data(as_text=True)
    numbers = [re.findall(r"· (7\d{3})", page) for page in (first, second)]
    assert [len(each) for each in numbers] == [pagination.PAGE_SIZE, 3]
    assert numbers[0] + numbers[1] == [f"7{number:03}" for number in reversed(range(count))]


def test_an_empty_log_says_what_will_stand_there(admin: FlaskClient, acme: str) -> None:
    assert "No events yet" in shown(admin, f"/tenants/{acme}/deliveries")


def test_a_fragment_is_the_list_alone(admin: FlaskClient, acme: str) -> None:
    fragment = admin.get(f"/tenants/{acme}/deliveries", headers={"HX-Request": "true"}).get_data(as_text=True)
    assert fragment.strip().startswith('<div id="delivery-log"')
