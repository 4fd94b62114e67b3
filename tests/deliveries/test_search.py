"""What is looked for in the delivery log: each filter, all together, and how far back a search looks."""

import re
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.deliveries import search
from portal.deliveries.forms import STATUS_LABELS
from portal.web import pagination
from tests.conftest import SignIn
from tests.deliveries.test_welcome import USER
from tests.pages import HTMX
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post

LOG = "/tenants/acme.example/deliveries"


@pytest.fixture
def filled(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    """Events of several kinds and outcomes. `found` counts them from the oldest one."""
    support = CALL_LOST | {"queue_number": "8001", "queue_name": "Support"}
    post(data=CALL_LOST | {"caller_number": "+442079460001", "caller_name": "Zoë Köhler"}, id="evt-1")
    peer.script = {"dot": "554 5.7.1 no"}
    post(data=support | {"caller_number": "7002"})
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such user"]}
    post("queue.callback_failed", support | {"caller_number": "7003", "callback_number": "(030) 123-456"})
    peer.script = {"dot": "451 4.3.0 later"}
    post("user.created", USER | {"email": "ana@acme.example"})
    peer.script = {}
    with app.app_context():
        sql("DELETE FROM notification_settings WHERE event_type = 'queue.sla_breached'")
    post("queue.sla_breached", CALL_LOST | {"caller_number": "7005", "sla_seconds": 60})


def read(browser: FlaskClient, **arguments: Any) -> str:
    return unescape(browser.get(LOG, query_string=arguments).get_data(as_text=True))


def found(browser: FlaskClient, **arguments: Any) -> str:
    """Return the numbers of the events that the log shows, newest first."""
    shown = re.findall(r'<tbody id="event-([^"]+)"', read(browser, **arguments))
    with browser.application.app_context():
        numbers = {str(row.id): str(number) for number, row in enumerate(sql("SELECT id FROM events ORDER BY id"), 1)}
    return "".join(numbers[each] for each in shown)


NARROWED: list[tuple[dict[str, str], str]] = [
    ({}, "54321"),
    ({"event": "queue.call_lost"}, "21"),
    ({"event": "user.created"}, "4"),
    ({"event": "queue.digest"}, ""),
    ({"outcome": "sent"}, "1"),
    ({"outcome": "failed"}, "2"),
    ({"outcome": "partial"}, "3"),
    ({"outcome": "deferred"}, "4"),
    ({"outcome": "ignored"}, "5"),
    ({"outcome": "expired"}, ""),
    ({"recipient": "ana@acme.example"}, "4"),
    ({"recipient": "ANA@"}, "4"),
    ({"recipient": "night"}, "4321"),
    ({"recipient": "night", "outcome": "failed"}, "32"),
    ({"recipient": "ops", "outcome": "failed"}, "2"),
    ({"recipient": "ops", "outcome": "sent"}, "31"),
    ({"queue": "8001"}, "32"),
    ({"queue": "supp"}, "32"),
    ({"queue": "800"}, ""),
    ({"q": "zoë"}, "1"),
    ({"q": "KÖHLER"}, "1"),
    ({"q": "020 7946 0001"}, "1"),
    ({"q": "+44 (20) 7946-0001"}, "1"),
    ({"q": "0044"}, "1"),
    ({"q": "030 123456"}, "3"),
    ({"q": "1001"}, "4"),
    ({"q": "ana@acme"}, "4"),
    ({"q": "700", "queue": "8001", "outcome": "failed"}, "2"),
    ({"q": "queue_number"}, ""),
    ({"q": "%"}, ""),
    ({"q": "' OR 1=1 --"}, ""),
    ({"q": "evt-1"}, "1"),
    ({"q": "evt"}, ""),
    ({"q": "evt-1", "outcome": "failed"}, ""),
    ({"q": " evt-1 ", "event": ""}, "1"),
]


@pytest.mark.slow
def test_it_is_narrowed(admin: FlaskClient, filled: None) -> None:
    for wanted, numbers in NARROWED:
        assert found(admin, **wanted) == numbers, wanted


def test_a_message_id_finds_its_event(app: Flask, admin: FlaskClient, filled: None) -> None:
    with app.app_context():
        ids = [row[0] for row in sql("SELECT message_id FROM deliveries ORDER BY id")]
    for written in (ids[1], ids[1].strip("<>"), ids[1][1:33].upper()):
        assert found(admin, q=written) == "2"
    assert found(admin, q=f"<{UUID(int=1).hex}@portal.test>") == ""


DAYS = [
    ("2026-03-02", "2026-03-02", "21"),  # Berlin: from 23:00 UTC to 23:00 UTC
    ("2026-03-03", "", "543"),
    ("", "2026-03-01", ""),
    ("0001-01-01", "9999-12-31", "54321"),
    ("2026-03-03", "2026-03-02", ""),
]


def test_days_are_the_tenants(app: Flask, admin: FlaskClient, filled: None) -> None:
    move = """
        UPDATE events SET id = overlay(replace(id::text, '-', '') PLACING lpad(to_hex(
            (extract(epoch FROM timestamptz '2026-03-01 22:59Z' + interval '12 hours' * n - interval '11 hours') * 1000
        )::bigint), 12, '0') FROM 1)::uuid
        FROM (SELECT id AS old, row_number() OVER (ORDER BY id) AS n FROM events) AS numbered WHERE id = old
    """
    with app.app_context():
        sql("DELETE FROM deliveries")
        sql("UPDATE events SET ignored_reason = 'switched_off'")
        sql(move)
    for since, until, numbers in DAYS:
        assert found(admin, since=since, until=until) == numbers, (since, until)


def test_what_cannot_be_looked_for_is_told(admin: FlaskClient, filled: None) -> None:
    wrong = {"since": "yesterday", "event": "no.such", "outcome": "lost", "q": "a\x00b", "recipient": "x" * 201}
    for bad in wrong.items():
        answer = admin.get(LOG, query_string=[bad])
        assert answer.status_code == 422, bad
        page = answer.get_data(as_text=True)
        assert "Search not run" in page
        assert 'class="error"' in page
        assert "<tbody" not in page
        assert admin.get(f"{LOG}.csv", query_string=[bad]).status_code == 400


def test_what_narrows_it_is_shown_and_taken_away_with_one_click(admin: FlaskClient, filled: None) -> None:
    page = read(admin, event="queue.call_lost", q="7002", since="2026-01-31")
    chips = re.findall(r'<li><a href="([^"]+)"><span>(.*?)</span> <bdi>(.*?)</bdi>', page)
    assert [(label, value) for _, label, value in chips] == [
        ("Search", "7002"),
        ("Event", "When a queue call is lost"),
        ("From", "31 Jan 2026"),
    ]
    assert chips[0][0] == f"{LOG}?event=queue.call_lost&since=2026-01-31"
    assert f'<a class="clear" href="{LOG}">Clear all</a>' in page
    assert re.search(rf'href="{LOG}.csv\?event=queue.call_lost&q=7002&since=2026-01-31" download', page)


def test_an_empty_result_leads_on(admin: FlaskClient, filled: None) -> None:
    page = read(admin, q="nobody")
    assert "No events match these filters." in page
    assert f'href="{LOG}">Show all events' in page


def test_pages_keep_what_is_looked_for(admin: FlaskClient, filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 1)
    first = read(admin, queue="8001")
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    assert "queue=8001" in older[1]
    second = unescape(admin.get(older[1]).get_data(as_text=True))
    assert "8001" in first
    assert [len(re.findall("<tbody id=", page)) for page in (first, second)] == [1, 1]
    assert 'rel="next"' not in second
    assert re.search(rf'href="{LOG}\?queue=8001" rel="prev"', second)


def test_a_search_says_how_far_back_it_looked_and_goes_on(
    app: Flask, admin: FlaskClient, filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_SEARCHED", 2)
    first = read(admin, event="queue.call_lost")
    assert re.search(r"Nothing found so far\.</strong> Searched back to\s+<time", first)
    further = re.search(r'href="([^"]+)">Search further back', first)
    assert further
    second = unescape(admin.get(further[1]).get_data(as_text=True))
    assert second.count("<tbody id=") == 1
    assert "Nothing found" not in second
    further = re.search(r'href="([^"]+)">Search further back', second)
    assert further
    third = unescape(admin.get(further[1]).get_data(as_text=True))
    assert third.count("<tbody id=") == 1
    assert "Search further back" not in third
    assert "Looked back" not in third
    assert read(admin, q="evt-1").count("<tbody id=") == 1, "an id is found however old it is"


def test_the_bound_does_not_shorten_the_whole_log(
    admin: FlaskClient, filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 2)
    monkeypatch.setattr(search, "MAX_SEARCHED", 3)
    page = read(admin)
    assert page.count("<tbody id=") == 2
    assert "Looked back" not in page


def test_htmx_gets_the_list_and_a_clean_address(admin: FlaskClient, filled: None) -> None:
    answer = admin.get(LOG, query_string={"q": "7002", "event": "", "since": ""}, headers=HTMX)
    assert answer.get_data(as_text=True).lstrip().startswith('<div id="delivery-log"')
    assert answer.headers["HX-Replace-Url"] == f"{LOG}?q=7002"


def test_nothing_of_another_tenant_is_found(app: Flask, sign_in: SignIn, filled: None, globex: str) -> None:
    with app.app_context():
        message_id = sql("SELECT message_id FROM deliveries LIMIT 1")[0][0]
    stranger = sign_in("admin@globex.example", administers=globex)
    for wanted in ({}, {"q": "evt-1"}, {"q": message_id}, {"recipient": PEOPLE[0]}, {"queue": "8001"}):
        for page in (f"/tenants/{globex}/deliveries", f"/tenants/{globex}/deliveries.csv"):
            text = stranger.get(page, query_string=wanted).get_data(as_text=True)
            assert "<tbody" not in text
            assert "queue.call_lost,evt" not in text


def test_what_is_looked_for_is_only_text(admin: FlaskClient, filled: None) -> None:
    page = admin.get(LOG, query_string={"q": '"><script>alert(1)</script>', "recipient": "<b>x"}).get_data(as_text=True)
    assert "<script>alert" not in page
    assert "<b>x" not in page


def test_outcomes_are_called_as_in_the_list(app: Flask) -> None:
    with app.test_request_context():
        macros = app.jinja_env.get_template("_macros.html").module
        for status, word in STATUS_LABELS.items():
            assert f"</svg>{word}</span>" in macros.outcome(status)  # type: ignore[attr-defined]
