"""Polling of the log: changed rows, the number of new events, and mostly nothing."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.deliveries import delivery_log
from tests.deliveries.test_retry import Work, work
from tests.deliveries.test_views import LOG, visible_text
from tests.pages import HTMX
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import CALL_LOST, Post

__all__ = ["statements", "work"]

HIDDEN = re.compile(r'<input type="hidden"(?: form="poll-form")? name="(newest|watched|q|event_id)" value="([^"]+)"')


def look(browser: FlaskClient, page: str, **changes: Any) -> TestResponse:
    """Ask what is new as the page does."""
    fields = [(name, value) for name, value in HIDDEN.findall(page) if name not in changes] + [*changes.items()]
    return browser.get(f"{LOG}/updates", query_string=fields, headers=HTMX)


def page_of(browser: FlaskClient, address: str = LOG) -> str:
    return browser.get(address).get_data(as_text=True)


@pytest.fixture
def waiting(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    """An event whose mail was sent, and one whose mail waits."""
    post(data=CALL_LOST | {"caller_number": "7001"})
    peer.script = {"dot": "451 4.3.0 later"}
    post(data=CALL_LOST | {"caller_number": "7002"})
    peer.script = {}


def test_where_nothing_changed_nothing_is_said(admin: FlaskClient, waiting: None, statements: Statements) -> None:
    page = page_of(admin)
    assert len(re.findall('name="watched"', page)) == 1, "only what may change is asked about"
    statements.clear()
    answer = look(admin, page)
    assert (answer.status_code, answer.data) == (204, b"")
    asked = [each for each in statements if "deliveries" in each or "events" in each]
    assert len(asked) == 2


def test_an_outcome_changes_in_its_place(admin: FlaskClient, waiting: None, work: Work) -> None:
    page = page_of(admin)
    work()
    answer = look(admin, page)
    html = answer.get_data(as_text=True)
    assert html.count("<tbody ") == html.count('hx-swap-oob="true"') == 1
    assert "7002" in html
    assert "#sent" in html
    assert "messages" not in html, "what stands in the page's messages stays"


def test_what_becomes_due_is_told(app: Flask, admin: FlaskClient, waiting: None) -> None:
    page = page_of(admin)
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now() + interval '5 seconds' WHERE status = 'deferred'")
    assert "Sending shortly" in visible_text(look(admin, page))


def test_new_events_are_announced_once(
    app: Flask, admin: FlaskClient, waiting: None, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_log, "RECORDING_TIME", timedelta(0))
    page = page_of(admin)
    for caller in ("7003", "7004"):
        post(data=CALL_LOST | {"caller_number": caller})
    html = look(admin, page).get_data(as_text=True)
    assert "2 new events" in html
    assert "<tbody" not in html
    assert look(admin, page, shown_count="2").status_code == 204
    assert "2 new events" not in visible_text(look(admin, page_of(admin)))
    monkeypatch.setattr(delivery_log, "MAX_NEW_EVENTS", 1)
    assert "1+ new event" in visible_text(look(admin, page))


def test_only_what_is_looked_for_is_announced(admin: FlaskClient, waiting: None, post: Post) -> None:
    page = page_of(admin, f"{LOG}?q=7003")
    post(data=CALL_LOST | {"caller_number": "7004"})
    assert look(admin, page).status_code == 204
    post(data=CALL_LOST | {"caller_number": "7003"})
    answer = look(admin, page)
    assert "1 new event" in visible_text(answer)
    assert f'href="{LOG}?q=7003"' in answer.get_data(as_text=True)


def test_what_is_under_way_while_a_page_is_made_is_announced(admin: FlaskClient, acme: str, post: Post) -> None:
    page = page_of(admin)
    post()
    assert "1 new event" in visible_text(look(admin, page))


def test_an_events_page_hears_of_it_too(app: Flask, admin: FlaskClient, waiting: None, work: Work) -> None:
    with app.app_context():
        event = sql("SELECT event_id FROM deliveries WHERE status = 'deferred'")[0][0]
    page = page_of(admin, f"{LOG}/{event}")
    assert look(admin, page).status_code == 204
    work()
    html = look(admin, page).get_data(as_text=True)
    assert html.lstrip().startswith('<div id="event-details"')
    assert "queued as 4711" in html


def test_older_pages_ask_nothing(admin: FlaskClient, waiting: None) -> None:
    assert "data-poll" not in page_of(admin, f"{LOG}?before={2**128 - 1:032x}")


def test_a_question_that_makes_no_sense_is_refused(admin: FlaskClient, waiting: None) -> None:
    page = page_of(admin)
    for wrong in ({"newest": "x"}, {"watched": "x.y"}, {"q": "a\x00b"}):
        assert look(admin, page, **wrong).status_code == 400, wrong


def test_after_the_last_of_all_keys_nothing_comes(admin: FlaskClient, waiting: None) -> None:
    assert look(admin, page_of(admin), newest=str(UUID(int=2**128 - 1))).status_code == 204


def test_looking_keeps_no_session_alive(app: Flask, admin: FlaskClient, waiting: None) -> None:
    page = page_of(admin)
    with app.app_context():
        sql("UPDATE account_sessions SET last_seen_at = now() - interval '1 hour'")
        before = sql("SELECT last_seen_at, expires_at FROM account_sessions")
    assert look(admin, page).status_code == 204
    with app.app_context():
        assert sql("SELECT last_seen_at, expires_at FROM account_sessions") == before
    page_of(admin)
    with app.app_context():
        assert sql("SELECT last_seen_at, expires_at FROM account_sessions") != before
