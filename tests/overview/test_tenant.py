"""The overview of a tenant: email health, alerts and the latest events."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.deliveries import statistics
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.overview.page_text import page_text
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import SmtpPeer, closed_port
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post, entered

PAGE = "/tenants/acme.example/overview"
CALM = "Nothing needs your attention"


@pytest.fixture
def acme_in_scope(app: Flask, working_tenant: str) -> Callable[[], Tenant]:
    """A function that enters the scope of Acme within an application context."""

    def enter() -> Tenant:
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        return tenant

    return enter


Enter = Callable[[], Tenant]


def test_it_is_the_first_page_of_a_workspace(admin: FlaskClient, working_tenant: str) -> None:
    assert admin.get(f"/tenants/{working_tenant}/").location == PAGE
    assert "Overview" in page_text(admin, PAGE)


def test_all_is_well(admin: FlaskClient, post: Post, working_tenant: str) -> None:
    post()
    page = page_text(admin, PAGE)
    assert "Email is working Through your own mail server 127.0.0.1" in page
    assert f"now to {PEOPLE[0]} and 1 more" in re.sub(r"\d+ seconds? ago", "now", page)
    assert "Last failure" not in page
    assert CALM in page
    assert "First steps" not in page
    assert "When a queue call is lost Queue 8000 · +442079460123 Sent" in page


def test_the_status_bar_of_other_pages_is_not_repeated(admin: FlaskClient, working_tenant: str) -> None:
    assert 'id="mail-server-status"' not in admin.get(PAGE).get_data(as_text=True)


def test_the_last_failure_is_quoted_and_explained(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    post()
    peer.script = {"rcpt": "550 5.1.1 No such user"}
    post()
    page = page_text(admin, PAGE)
    assert "The last email failed" in page
    assert "550 5.1.1 No such user" in page
    assert "this mailbox does not exist" in page
    assert "1 email failed in the last 24 hours." in page
    peer.script = {}
    post()
    assert "Email is working" in page_text(admin, PAGE)


def test_a_success_through_another_mail_server_does_not_count(
    admin: FlaskClient, post: Post, working_tenant: str, app: Flask, acme_in_scope: Enter
) -> None:
    post()
    with app.app_context():
        acme_in_scope()
        sql("UPDATE mail_servers SET host = 'smtp.elsewhere.example'")
    page = page_text(admin, PAGE)
    assert "Email is working" not in page
    assert "Mail server is ready" in page


def test_a_partly_sent_email_is_a_success_and_a_failure(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 No such user"]}
    assert post().json["status"] == "partial"
    page = page_text(admin, PAGE)
    assert f"ago to {PEOPLE[0]} Last failure" in page
    assert f"ago to {PEOPLE[1]} 550 5.1.1 No such user" in page


def test_a_server_that_rejects_its_settings(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer, app: Flask
) -> None:
    peer.script = {"mail": "550 5.7.1 Sender refused"}
    post()
    assert "1 email is held: the mail server rejects the settings. Check the settings" in page_text(admin, PAGE)
    with app.app_context():
        sql("UPDATE mail_servers SET rejected_at = now(), pause_reason = 'Wrong password.'")
    page = page_text(admin, PAGE)
    assert "Email is not being sent" in page
    assert "Wrong password. Nothing is sent until the settings are saved again." in page
    assert "Try now" not in page


def test_a_paused_server_is_tried_now(admin: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    with closed_port() as port, app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant
        mail_server_settings.save(tenant.id, entered(port))
        assert post().json["status"] == "deferred"
    page = admin.get(PAGE).get_data(as_text=True)
    assert "Email is delayed" in page
    assert 'hx-get="/tenants/acme.example/overview?polls=199"' in page, "it looks whether that changes"
    answer = admin.post(f"{PAGE}/try-now", data={"csrf_token": csrf_token(page)}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    fragment = answer.get_data(as_text=True)
    assert fragment.lstrip().startswith('<div id="now"')
    assert "Email is delayed" not in fragment
    assert submit(admin, PAGE, f"{PAGE}/try-now").location == PAGE


def test_polling_ends(admin: FlaskClient, app: Flask, working_tenant: str) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute', pause_reason = 'Gone.'")
    for looks, looks_again in ((1, False), (2, True), (10**9, True)):
        assert ("hx-get" in admin.get(f"{PAGE}?polls={looks}").get_data(as_text=True)) == looks_again


def test_the_fragment_runs_no_counts(admin: FlaskClient, post: Post, working_tenant: str) -> None:
    post()
    fragment = page_text(admin, PAGE, htmx=True)
    assert "Email is working" in fragment
    assert "Deliveries" not in fragment


def test_a_suspended_tenant(admin: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant
        tenant_service.suspend(tenant)
    page = page_text(admin, PAGE)
    assert "Email is off: tenant suspended" in page
    assert "The tenant is suspended: events are recorded, but no email is sent." in page


def test_what_is_missing(admin: FlaskClient, post: Post, acme_in_scope: Enter, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = acme_in_scope()
        mail_server_settings.remove(tenant.id)
        recipients.replace(tenant, [])
        settings.set_enabled(tenant, EVENT_TYPES, on=False)
        for each in api_keys.list_keys(tenant):
            api_keys.revoke(each)
    page = page_text(admin, PAGE)
    for alert in (
        "No mail server is set up.",
        "There are no recipients.",
        "All events are off",
        "no valid PBX key",
    ):
        assert alert in page
    assert "Email cannot be sent" in page
    with app.app_context():
        api_keys.issue(None)
    assert "no valid PBX key" not in page_text(admin, PAGE), "the system's PBX reports events too"


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM mail_servers", "2 emails are held: no mail server is set up. Set up a mail server"),
        ("DELETE FROM recipients", "2 emails are held: there are no recipients. Enter recipients"),
    ],
)
def test_held_email_is_named_in_the_same_alert(
    admin: FlaskClient, post: Post, working_tenant: str, app: Flask, statement: str, sentence: str
) -> None:
    post()
    with app.app_context():
        sql(statement)
    for _ in range(2):
        assert post().json["status"] == "held"
    alerts = page_text(admin, PAGE).partition("Needs attention")[2]
    assert sentence in alerts
    assert "No mail server is set up." not in alerts
    assert "There are no recipients." not in alerts


def test_email_held_for_other_reasons(
    admin: FlaskClient, post: Post, working_tenant: str, app: Flask, peer: SmtpPeer
) -> None:
    for caller in range(12):
        post(data=CALL_LOST | {"caller_number": f"70{caller:02}"})
    page = page_text(admin, PAGE)
    assert "2 emails are held: too many at once. View them" in page
    assert "/deliveries?outcome=held" in admin.get(PAGE).get_data(as_text=True)
    with app.app_context():
        sql("UPDATE deliveries SET reason = 'may_have_been_sent' WHERE reason IS NOT NULL")
    assert "2 emails are held: possibly sent already. Decide" in page_text(admin, PAGE)


def test_alerts_are_in_the_readers_language(admin: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    with app.app_context():
        sql("DELETE FROM mail_servers")
    assert post().json["status"] == "held"
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    page = page_text(admin, PAGE)
    assert "1 E-Mail wird zurückgehalten: Es ist kein Mailserver eingerichtet. Mailserver einrichten" in page
    assert "Ein Anruf in einer Warteschlange ging verloren Warteschlange 8000" in page


def test_failed_and_expired_emails_are_shown_for_a_day(
    admin: FlaskClient, post: Post, working_tenant: str, app: Flask
) -> None:
    for number in range(3):
        post(data=CALL_LOST | {"queue_number": f"900{number}"})
    with app.app_context():
        sql("UPDATE deliveries SET status = 'expired', expires_at = now() - interval '1 hour'")
        assert "3 emails expired in the last 24 hours." in page_text(admin, PAGE)
        sql("UPDATE deliveries SET expires_at = now() - interval '25 hours'")
        assert "expired" not in page_text(admin, PAGE).partition("Emails in")[0]
        sql("UPDATE deliveries SET status = 'failed', last_attempt_at = now() - interval '23 hours'")
        assert "3 emails failed in the last 24 hours." in page_text(admin, PAGE)
        sql("UPDATE deliveries SET last_attempt_at = now() - interval '25 hours'")
        assert CALM in page_text(admin, PAGE)


def test_keys(admin: FlaskClient, post: Post, acme_in_scope: Enter, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = acme_in_scope()
        today = datetime.now(ZoneInfo(tenant.time_zone)).date()
        api_keys.issue(tenant, "Spare")
        api_keys.issue(tenant, "Temporary", today + timedelta(days=9))
        api_keys.issue(tenant, "Later", today + timedelta(days=30))
        old = api_keys.issue(tenant, "Rotated", today + timedelta(days=100)).row
        api_keys.rotate(tenant, old, timedelta(days=1))
    page = page_text(admin, PAGE)
    assert "Key “Spare” has never been used. Connect the PBX" in page
    assert "Key “Temporary” expires in 9 days. Rotate the key" in page
    assert "“Later” expires" not in page
    assert "“Rotated” expires" not in page, "its successor is there"


def test_a_pbx_that_sends_no_events(admin: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql("UPDATE api_keys SET last_used_at = now() - interval '9 days'")
    assert "The PBX has sent no event for 9 days." in page_text(admin, PAGE)


def test_rejected_requests(admin: FlaskClient, post: Post, working_tenant: str) -> None:
    post()
    for _ in range(3):
        post("queue.call_lost", {})
    assert "3 requests were rejected in the last 7 days. View details" in page_text(admin, PAGE)


def test_the_chart_and_its_text(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer, app: Flask
) -> None:
    post()
    peer.script = {"rcpt": "550 5.1.1 No such user"}
    post()
    with app.app_context():
        statistics.update()
    html = admin.get(PAGE).get_data(as_text=True)
    assert html.count('<g class="day">') == 30
    assert "1 sent, 1 failed or expired." in html, "the summary"
    today = datetime.now(UTC).astimezone().strftime("%a")
    assert "1 sent, 1 failed or expired</title>" in html, today
    assert "not counted" not in html
    assert "style=" not in html.partition("<svg width")[2].partition("</svg>")[0]


def test_uncounted_days_are_marked(admin: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql("UPDATE tenants SET created_at = now() - interval '100 days'")
    page = page_text(admin, PAGE)
    assert "28 days have not been counted yet" in page
    assert "A worker counts every 5 minutes." in page


def test_a_tenant_without_events_has_no_chart_and_no_events(admin: FlaskClient, working_tenant: str) -> None:
    page = page_text(admin, PAGE)
    assert "Deliveries in" not in page
    assert "Latest events" not in page
