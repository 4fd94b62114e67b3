"""The delivery log as the tenant's administrator reads it."""

import re

from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.notifications import recipients
from portal.tenants import service as tenant_service
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
        "550 5.1.1 no such &lt;b&gt;user&lt;/b&gt;",
        "Partly sent",
    ):
        assert words in page
    assert "queued as 4711" not in page, "what is said about success is on the event's page"


def test_events_are_grouped_by_the_day_in_the_tenants_time_zone(
    admin: FlaskClient, app: Flask, post: Post, working_tenant: str
) -> None:
    for number in range(3):
        post(data={"queue_number": "8000", "caller_number": f"700{number}"})
    for caller, at in (("7001", "2026-03-01 23:30Z"), ("7000", "2026-03-01 22:30Z")):  # Berlin: 2 and 1 March
        with app.app_context():
            sql(f"UPDATE events SET received_at = '{at}' WHERE data ->> 'caller_number' = '{caller}'")
    page = admin.get(f"/tenants/{working_tenant}/deliveries").text
    found = re.findall(r'scope="colgroup"[^>]*>([^<]+)<|· (7\d{3})|(\d\d:\d\d)</time></td>', page)
    read = [day or caller or clock for day, caller, clock in found]
    assert read[2:] == ["7002", "Monday, 2 March 2026", "00:30", "7001", "Sunday, 1 March 2026", "23:30", "7000"]


def test_several_recipients_are_one_line_and_a_failure_has_a_line_of_its_own(
    admin: FlaskClient, app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, ["a@x.example", "b@x.example", "c@x.example", "d@x.example"])
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such user", "250 ok", "250 ok"]}
    post()
    page = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", admin.get(f"/tenants/{working_tenant}/deliveries").text))
    assert "a@x.example and 2 more" in page
    assert "b@x.example Failed 550 5.1.1 no such user" in page


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
