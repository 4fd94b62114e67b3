"""Actions on emails in the delivery log."""

import re
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from portal.database.scope import every_tenant
from portal.deliveries import digest
from portal.deliveries.models import Delivery
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.tenants import service as tenant_service
from portal.web import pagination
from tests.conftest import SignIn
from tests.deliveries.test_actions import statuses
from tests.deliveries.test_welcome import USER, read
from tests.due_emails import send_due_emails
from tests.pages import HTMX, csrf_token
from tests.pages import post as post_form
from tests.smtp_peer import Fault, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post

LOG = "/tenants/acme.example/deliveries"
SEND_NOW, DISCARD, SEND_AGAIN = (f"{LOG}/{action}" for action in ("send-now", "discard", "send-again"))
ACTIONS = (SEND_NOW, DISCARD, SEND_AGAIN)
ACTION_OF_A_BUTTON = re.compile(r'form="row-action-form"[^>]*formaction="[^"]*/([a-z-]+)"')


@pytest.fixture
def waiting(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> list[UUID]:
    """Three emails that wait for their next attempt, on a mail server that has recovered."""
    peer.script = {"dot": "451 4.3.0 later"}
    for _ in range(3):
        post()
    peer.script = {}
    return ids(app)


def ids(app: Flask) -> list[UUID]:
    with app.app_context(), every_tenant():
        return list(db.session.scalars(select(Delivery.id).order_by(Delivery.id)))


def all_statuses(app: Flask) -> list[str]:
    with app.app_context():
        return statuses()


def change(app: Flask, statement: str) -> None:
    with app.app_context():
        sql(statement)


def do_all(app: Flask) -> None:
    """Do all that a worker has to do, now."""
    change(app, "UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at < now() + interval '5 seconds'")
    with app.app_context():
        send_due_emails()


def decide(browser: FlaskClient, action: str, *chosen: Any, htmx: bool = False, page: str = LOG) -> TestResponse:
    return post_form(browser, page, action, htmx=htmx, delivery=[str(each) for each in chosen])


def visible_text(answer: TestResponse) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.get_data(as_text=True))))


def shown(browser: FlaskClient) -> str:
    return visible_text(browser.get(LOG))


def test_an_email_leads_to_the_page_of_its_event(
    post: Post, working_tenant: str, peer: SmtpPeer, admin: FlaskClient
) -> None:
    post()
    body = read(peer.messages[0].content).get_body(("html",))
    assert body is not None
    url = re.search(rf'href="http://portal\.test({LOG}/[^"]+)"', body.get_content())
    assert url
    page = admin.get(url[1])
    assert page.status_code == 200
    assert "+442079460123" in page.text


def test_a_selection_is_sent_now_and_leads_back_to_the_log(
    app: Flask, admin: FlaskClient, waiting: list[UUID], peer: SmtpPeer
) -> None:
    answer = decide(admin, SEND_NOW, *waiting[:2])
    assert (answer.status_code, answer.location) == (303, LOG)
    assert "2 emails will be sent now." in shown(admin)
    do_all(app)
    assert all_statuses(app) == ["sent", "sent", "deferred"]
    assert len(peer.messages) == 2


def test_a_selection_is_discarded(app: Flask, admin: FlaskClient, waiting: list[UUID], peer: SmtpPeer) -> None:
    assert decide(admin, DISCARD, waiting[0], waiting[2]).status_code == 303
    page = shown(admin)
    assert "2 emails were discarded." in page
    assert "Discarded" in page
    do_all(app)
    assert all_statuses(app) == ["discarded", "deferred", "discarded"]
    assert not peer.messages


def test_htmx_gets_the_rows_that_changed_with_the_focus_on_the_first(admin: FlaskClient, waiting: list[UUID]) -> None:
    html = decide(admin, DISCARD, *waiting[:2], htmx=True).get_data(as_text=True)
    assert html.count("<tbody ") == html.count(' hx-swap-oob="true"') == html.count("#discarded") == 2
    assert html.count(" autofocus") == html.partition("</tbody>")[0].count(" autofocus") == 1
    assert 'hx-swap-oob="innerHTML"' in html
    assert "2 emails were discarded." in html


def test_who_selected_nothing_is_told(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    for action in (SEND_NOW, DISCARD):
        assert decide(admin, action).status_code == 303
        assert "Select emails first." in shown(admin)
    assert all_statuses(app) == ["deferred"] * 3


def test_what_is_no_delivery_is_passed_over(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    assert decide(admin, DISCARD, "' OR 1=1", UUID(int=1), waiting[0]).status_code == 303
    assert all_statuses(app) == ["discarded", "deferred", "deferred"]


def test_what_ended_meanwhile_stays_as_it_is(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    decide(admin, DISCARD, *waiting)
    shown(admin)
    for action in (SEND_NOW, DISCARD):
        decide(admin, action, *waiting)
        assert "the emails are no longer held or queued" in shown(admin)
    assert all_statuses(app) == ["discarded"] * 3


def test_a_sent_mail_is_sent_again(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    post()
    answer = decide(admin, SEND_AGAIN, *ids(app))
    assert (answer.status_code, answer.location) == (303, LOG)
    page = shown(admin)
    assert "The email is being sent again." in page
    assert "Requested again" in page
    do_all(app)
    assert [mail.recipients for mail in peer.messages] == [PEOPLE, PEOPLE]
    assert all_statuses(app) == ["sent", "sent"]


@pytest.mark.parametrize("htmx", [False, True])
def test_a_welcome_mail_without_its_password_says_what_to_do(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer, htmx: bool
) -> None:
    post("user.created", USER)
    before = len(ids(app))
    answer = decide(admin, SEND_AGAIN, ids(app)[0], htmx=htmx)
    assert "Have the PBX report the user again." in (visible_text(answer) if htmx else shown(admin))
    assert len(ids(app)) == before


@pytest.mark.parametrize("count", [0, 2])
def test_one_mail_is_sent_again_at_a_time(app: Flask, admin: FlaskClient, waiting: list[UUID], count: int) -> None:
    assert decide(admin, SEND_AGAIN, *waiting[:count]).status_code == 400


def test_one_stays_on_the_page_of_the_log_where_one_is(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 1)
    for _ in range(2):
        post()
    older = re.search(r'href="([^"]*before=[^"]*)"', admin.get(LOG).get_data(as_text=True))
    assert older is not None
    action = re.search(rf'formaction="({SEND_AGAIN}[^"]*)"', admin.get(older[1]).get_data(as_text=True))
    assert action is not None
    assert decide(admin, action[1], ids(app)[0], page=older[1]).location == older[1]


OFFERED: list[tuple[str, list[str]]] = [
    ("status = 'sent', next_attempt_at = NULL", ["send-again"]),
    ("status = 'failed', next_attempt_at = NULL", ["send-again"]),
    ("status = 'expired', next_attempt_at = NULL", ["send-again"]),
    ("status = 'discarded', next_attempt_at = NULL", []),
    ("status = 'held', next_attempt_at = NULL, reason = 'throttled'", ["send-now", "discard"]),
    ("status = 'deferred'", ["send-now", "discard"]),
    ("status = 'deferred', next_attempt_at = now()", ["discard"]),
    ("status = 'partial'", ["send-now", "discard"]),
    ("status = 'partial', next_attempt_at = NULL", ["send-again"]),
    ("status = 'pending', next_attempt_at = NULL, lease_until = now() + interval '1 minute'", []),
]


def test_what_can_be_done_is_offered_and_nothing_else(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    change(app, f"DELETE FROM deliveries WHERE id <> '{waiting[0]}'")
    change(app, "DELETE FROM events e WHERE NOT EXISTS (SELECT FROM deliveries WHERE event_id = e.id)")
    waits = "status = 'deferred', reason = NULL, lease_until = NULL, next_attempt_at = now() + interval '1 minute'"
    for values, buttons in OFFERED:
        change(app, f"UPDATE deliveries SET {waits}")
        change(app, f"UPDATE deliveries SET {values}")
        page = admin.get(LOG).text
        assert ACTION_OF_A_BUTTON.findall(page) == buttons, values
        assert ('type="checkbox"' in page) is ("discard" in buttons), values


def test_it_tells_why_a_mail_waits_how_often_it_was_tried_and_for_how_long(
    app: Flask, admin: FlaskClient, waiting: list[UUID]
) -> None:
    change(app, "UPDATE deliveries SET attempts = 4, next_attempt_at = now() + interval '239 minutes'")
    page = shown(admin)
    for each in ("Will try again", "451 4.3.0 later", "Next attempt in 4 hours", "4 attempts"):
        assert each in page


def test_held_mail_names_the_next_step(app: Flask, admin: FlaskClient, post: Post, working_tenant: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        mail_server_settings.remove(tenant.id)
    post()
    html = admin.get(LOG).get_data(as_text=True)
    assert 'No mail server is set up. <a href="/tenants/acme.example/mail-server">Set up a mail server</a>' in html


def test_what_may_have_been_sent_is_sent_only_after_a_question(
    admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": Fault.DROP}
    post("user.created", USER | {"email": None})
    html = admin.get(LOG).get_data(as_text=True)
    assert "it may have been sent." in html
    assert 'hx-confirm="It may have been sent already. Send it anyway?"' in html


def test_what_expired_says_so_with_the_last_reason(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    change(app, "UPDATE deliveries SET status = 'expired', next_attempt_at = NULL")
    change(app, "UPDATE delivery_recipients SET status = 'expired'")
    page = shown(admin)
    for each in ("Expired", "It could not be delivered in time.", "451 4.3.0 later"):
        assert each in page


def test_a_digest_says_what_it_is_about(app: Flask, admin: FlaskClient, post: Post, working_tenant: str) -> None:
    for number in range(12):
        post(data={"queue_number": "8000", "queue_name": "Support", "caller_number": f"7{number:03}"})
    change(app, "UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
    with app.app_context():
        assert sum(digest.write_digest(*each) for each in digest.ended_storms()) == 1
    page = shown(admin)
    assert "Summary email 12 lost calls in queue Support, 2 of them held" in page
    assert "Held because there were too many at once. It is listed in a summary email." in page


def test_the_administrator_of_another_tenant_changes_nothing(
    app: Flask, sign_in: SignIn, waiting: list[UUID], globex: str
) -> None:
    change(app, f"UPDATE deliveries SET status = 'sent', next_attempt_at = NULL WHERE id = '{waiting[2]}'")
    stranger = sign_in("admin@globex.example", administers=globex)
    own = f"/tenants/{globex}/deliveries"
    token = csrf_token(stranger.get(f"/tenants/{globex}/mail-server").get_data(as_text=True))
    for action in ACTIONS:
        for address in (action, action.replace(LOG, own)):
            for chosen in waiting:
                answer = stranger.post(address, data={"csrf_token": token, "delivery": str(chosen)}, headers=HTMX)
                assert answer.status_code == (404 if address == action else 200)
                assert "ops@acme.example" not in answer.get_data(as_text=True)
    assert all_statuses(app) == ["deferred", "deferred", "sent"]


def test_a_post_without_its_token_does_nothing(app: Flask, admin: FlaskClient, waiting: list[UUID]) -> None:
    for action in ACTIONS:
        assert admin.post(action, data={"delivery": str(waiting[0])}).status_code == 400
    assert all_statuses(app) == ["deferred"] * 3
