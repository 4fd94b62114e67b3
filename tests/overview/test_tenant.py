"""The overview of a tenant: whether mail works, what needs attention, and what happened."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.deliveries import tally
from portal.mail_servers import settings as mail_server_settings
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.overview.reading import words
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.ready import CALL_LOST, PEOPLE, Post, entered
from tests.smtp_peer import SmtpPeer, refusing_port
from tests.sql import sql

PAGE = "/tenants/acme.example/overview"
CALM = "Nothing needs your attention"


@pytest.fixture
def acme_in_scope(app: Flask, ready: str) -> Callable[[], Tenant]:
    """A function that enters the scope of Acme within an application context."""

    def enter() -> Tenant:
        tenant = directory.find(ready)
        assert tenant is not None
        enter_scope(tenant.id)
        return tenant

    return enter


Enter = Callable[[], Tenant]


def test_it_is_the_first_page_of_a_workspace(admin: FlaskClient, ready: str) -> None:
    assert admin.get(f"/tenants/{ready}/").location == PAGE
    assert "Overview" in words(admin, PAGE)


def test_all_is_well(admin: FlaskClient, post: Post, ready: str) -> None:
    post()
    page = words(admin, PAGE)
    assert "Mail is working Through your own mail server 127.0.0.1" in page
    assert f"now to {PEOPLE[0]} and 1 more" in page.replace("0 seconds ago", "now").replace("1 second ago", "now")
    assert "Last failure" not in page
    assert CALM in page
    assert "First steps" not in page
    assert "Call lost Queue 8000 · +442079460123 Sent" in page


def test_the_strip_of_other_pages_is_not_there_twice(admin: FlaskClient, ready: str) -> None:
    assert 'id="mail-server-status"' not in admin.get(PAGE).get_data(as_text=True)


def test_the_last_failure_is_quoted_and_explained(admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer) -> None:
    post()
    peer.script = {"rcpt": "550 5.1.1 No such user"}
    post()
    page = words(admin, PAGE)
    assert "The last mail failed" in page
    assert "550 5.1.1 No such user" in page
    assert "there is no such mailbox" in page
    assert "1 mail has failed in the last 24 hours." in page
    peer.script = {}
    post()
    assert "Mail is working" in words(admin, PAGE)


def test_a_success_through_another_mail_server_proves_nothing(
    admin: FlaskClient, post: Post, ready: str, app: Flask, acme_in_scope: Enter
) -> None:
    post()
    with app.app_context():
        acme_in_scope()
        sql("UPDATE mail_servers SET host = 'smtp.elsewhere.example'")
    page = words(admin, PAGE)
    assert "Mail is working" not in page
    assert "Mail server is ready" in page


def test_a_mail_that_was_partly_sent_is_both(admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 No such user"]}
    assert post().json["status"] == "partial"
    page = words(admin, PAGE)
    assert f"ago to {PEOPLE[0]} Last failure" in page
    assert f"ago to {PEOPLE[1]} 550 5.1.1 No such user" in page


def test_a_server_that_rejects_its_settings(
    admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer, app: Flask
) -> None:
    peer.script = {"mail": "550 5.7.1 Sender refused"}
    post()
    assert "1 mail is held: the mail server rejects the settings. Check them" in words(admin, PAGE)
    with app.app_context():
        sql("UPDATE mail_servers SET rejected_at = now(), pause_text = 'Wrong password.'")
    page = words(admin, PAGE)
    assert "Mail does not go out" in page
    assert "Wrong password. Nothing is sent until the settings are saved again." in page
    assert "Try now" not in page


def test_a_paused_server_is_tried_now(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    with refusing_port() as port, app.app_context():
        tenant = directory.find(ready)
        assert tenant
        mail_server_settings.save(tenant.id, entered(port))
        assert post().json["status"] == "deferred"
    page = admin.get(PAGE).get_data(as_text=True)
    assert "Mail waits" in page
    assert 'hx-get="/tenants/acme.example/overview?looks=199"' in page, "it looks whether that changes"
    answer = admin.post(f"{PAGE}/try-now", data={"csrf_token": csrf_token(page)}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    fragment = answer.get_data(as_text=True)
    assert fragment.lstrip().startswith('<div id="now"')
    assert "Mail waits" not in fragment
    assert submit(admin, PAGE, f"{PAGE}/try-now").location == PAGE


def test_it_does_not_look_for_ever(admin: FlaskClient, app: Flask, ready: str) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute', pause_text = 'Gone.'")
    for looks, looks_again in ((1, False), (2, True), (10**9, True)):
        assert ("hx-get" in admin.get(f"{PAGE}?looks={looks}").get_data(as_text=True)) == looks_again


def test_the_fragment_counts_nothing(admin: FlaskClient, post: Post, ready: str) -> None:
    post()
    fragment = words(admin, PAGE, htmx=True)
    assert "Mail is working" in fragment
    assert "Deliveries" not in fragment


def test_a_suspended_tenant(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = directory.find(ready)
        assert tenant
        directory.suspend(tenant)
    page = words(admin, PAGE)
    assert "No mail goes out: suspended" in page
    assert "The tenant is suspended: events are recorded, and no mail is sent." in page


def test_what_is_missing(admin: FlaskClient, post: Post, acme_in_scope: Enter, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = acme_in_scope()
        mail_server_settings.remove(tenant.id)
        recipients.replace(tenant, [])
        switches.turn(tenant, KINDS, on=False)
        for each in keys.of_owner(tenant):
            keys.revoke(each)
    page = words(admin, PAGE)
    for concern in (
        "There is no mail server.",
        "There are no recipients.",
        "No event is switched on",
        "no live PBX key",
    ):
        assert concern in page
    assert "No mail can be sent" in page
    with app.app_context():
        keys.issue(None)
    assert "no live PBX key" not in words(admin, PAGE), "the system's PBX reports events too"


@pytest.mark.parametrize(
    ("mend", "sentence"),
    [
        ("DELETE FROM mail_servers", "2 mails are held: there is no mail server. Set one up"),
        ("DELETE FROM recipients", "2 mails are held: there is nobody to send to. Enter recipients"),
    ],
)
def test_what_is_held_for_it_is_told_in_the_same_sentence(
    admin: FlaskClient, post: Post, ready: str, app: Flask, mend: str, sentence: str
) -> None:
    post()
    with app.app_context():
        sql(mend)
    for _ in range(2):
        assert post().json["status"] == "held"
    page = words(admin, PAGE)
    assert sentence in page
    assert "There is no mail server." not in page
    assert "There are no recipients." not in page


def test_held_mail_by_other_reasons(admin: FlaskClient, post: Post, ready: str, app: Flask, peer: SmtpPeer) -> None:
    for caller in range(12):
        post(data=CALL_LOST | {"caller_number": f"70{caller:02}"})
    page = words(admin, PAGE)
    assert "2 mails are held: there were too many at once. Look at them" in page
    assert "/deliveries?outcome=held" in admin.get(PAGE).get_data(as_text=True)
    with app.app_context():
        sql("UPDATE deliveries SET reason = 'may_have_been_sent' WHERE reason IS NOT NULL")
    assert "2 mails are held: nobody confirmed them. Decide" in words(admin, PAGE)


def test_it_speaks_the_readers_language(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    with app.app_context():
        sql("DELETE FROM mail_servers")
    assert post().json["status"] == "held"
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    page = words(admin, PAGE)
    assert "1 E-Mail wird zurückgehalten: Es gibt keinen Mailserver. Einrichten" in page
    assert "Anruf verloren Warteschlange 8000" in page


def test_what_failed_or_expired_is_told_for_a_day(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    for number in range(3):
        post(data=CALL_LOST | {"queue_number": f"900{number}"})
    with app.app_context():
        sql("UPDATE deliveries SET status = 'expired', expires_at = now() - interval '1 hour'")
        assert "3 mails have expired in the last 24 hours." in words(admin, PAGE)
        sql("UPDATE deliveries SET expires_at = now() - interval '25 hours'")
        assert "expired" not in words(admin, PAGE).partition("Deliveries in")[0]
        sql("UPDATE deliveries SET status = 'failed', attempted_at = now() - interval '23 hours'")
        assert "3 mails have failed in the last 24 hours." in words(admin, PAGE)
        sql("UPDATE deliveries SET attempted_at = now() - interval '25 hours'")
        assert CALM in words(admin, PAGE)


def test_keys(admin: FlaskClient, post: Post, acme_in_scope: Enter, app: Flask) -> None:
    post()
    with app.app_context():
        tenant = acme_in_scope()
        today = datetime.now(ZoneInfo(tenant.time_zone)).date()
        keys.issue(tenant, "Spare")
        keys.issue(tenant, "Temporary", today + timedelta(days=9))
        keys.issue(tenant, "Later", today + timedelta(days=30))
        old = keys.issue(tenant, "Rotated", today + timedelta(days=100)).row
        keys.rotate(tenant, old, timedelta(days=1))
    page = words(admin, PAGE)
    assert "Key “Spare” has never been used. Connect the PBX" in page
    assert "Key “Temporary” expires in 9 days. Rotate it" in page
    assert "“Later” expires" not in page
    assert "“Rotated” expires" not in page, "its successor is there"


def test_a_pbx_that_fell_silent(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql("UPDATE pbx_keys SET last_used_at = now() - interval '9 days'")
    assert "The PBX has not called for 9 days." in words(admin, PAGE)


def test_rejected_calls(admin: FlaskClient, post: Post, ready: str) -> None:
    post()
    for _ in range(3):
        post("queue.call_lost", {})
    assert "3 calls were rejected in the last 7 days. See why" in words(admin, PAGE)


def test_the_days_are_drawn_and_told(admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer, app: Flask) -> None:
    post()
    peer.script = {"rcpt": "550 5.1.1 No such user"}
    post()
    with app.app_context():
        tally.count()
    html = admin.get(PAGE).get_data(as_text=True)
    assert html.count('<g class="day">') == 30
    assert "1 sent, 1 failed or expired." in html, "the summary"
    today = datetime.now(UTC).astimezone().strftime("%a")
    assert "1 sent, 1 failed or expired</title>" in html, today
    assert "not counted" not in html
    assert "style=" not in html.partition("<svg width")[2].partition("</svg>")[0]


def test_days_that_nobody_counted_are_told(admin: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql("UPDATE tenants SET created_at = now() - interval '100 days'")
    page = words(admin, PAGE)
    assert "28 days are not counted yet" in page
    assert "A worker counts every 5 minutes." in page


def test_a_tenant_without_events_has_neither_days_nor_events(admin: FlaskClient, ready: str) -> None:
    page = words(admin, PAGE)
    assert "Deliveries in" not in page
    assert "Latest events" not in page
