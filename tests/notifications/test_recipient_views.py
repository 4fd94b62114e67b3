"""The page of a tenant's recipients."""

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.notifications import recipients
from portal.tenants import service as tenant_service
from tests.concurrency import blocked_until_done
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

PAGE = "/tenants/acme.example/recipients"


def today() -> date:
    """Return the tenant's day, which may begin after the tests were collected."""
    return datetime.now(ZoneInfo("Europe/Berlin")).date()


SOON = str(today() + timedelta(days=9))


def state(app: Flask) -> list[tuple[str, list[str], bool]]:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        return [(each.email, each.excluded_event_types, each.is_paused) for each in recipients.list_recipients()]


def all_but(*event_types: str) -> Iterable[str]:
    return [each for each in EVENT_TYPES if each not in event_types]


def test_events_of_a_recipient_are_chosen(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    answer = submit(admin, PAGE, f"{PAGE}/1/events", event=all_but("queue.call_lost"))
    assert (answer.status_code, answer.location) == (303, PAGE)
    assert state(app)[0] == ("ops@acme.example", ["queue.call_lost"], False)
    assert "Nobody gets" not in admin.get(PAGE).text
    assert "No recipient gets these events: When a queue call is lost." in submit(
        admin, PAGE, f"{PAGE}/2/events", htmx=True, event=all_but("queue.call_lost")
    ).get_data(as_text=True)


def test_unknown_event_types_are_rejected(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    assert submit(admin, PAGE, f"{PAGE}/1/events", event=["queue.nothing"]).status_code == 400
    assert state(app)[0][1] == []


def test_a_pause_and_its_end(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    assert submit(admin, PAGE, f"{PAGE}/1/pause", until=SOON).status_code == 303
    assert state(app)[0][2]
    soon = date.fromisoformat(SOON)
    day = rf"{soon.day} ({soon:%B}|{soon:%b}\w* {soon.year})"  # the year is there if it is the next one
    assert re.search(rf"Paused until {day}\b", admin.get(PAGE).text)
    html = submit(admin, PAGE, f"{PAGE}/1/resume", htmx=True).get_data(as_text=True)
    assert html.lstrip().startswith('<div id="recipients">')
    assert "Paused until" not in html
    assert not state(app)[0][2]


@pytest.mark.parametrize("until", ["", "nonsense", "2020-01-01", "2999-01-01", "today"])
def test_invalid_days_for_a_pause_are_rejected(app: Flask, admin: FlaskClient, working_tenant: str, until: str) -> None:
    answer = submit(admin, PAGE, f"{PAGE}/1/pause", until=str(today()) if until == "today" else until)
    assert answer.status_code == 422
    assert 'id="until-1-error"' in answer.text
    assert not state(app)[0][2]


def test_a_recipient_is_added_and_one_removed(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    assert submit(admin, PAGE, email="new@acme.example").status_code == 303
    assert submit(admin, PAGE, f"{PAGE}/1/remove").status_code == 303
    assert [each[0] for each in state(app)] == ["night@acme.example", "new@acme.example"]
    for wrong in ("", "nobody", "new@acme.example"):
        answer = submit(admin, PAGE, htmx=True, email=wrong)
        assert answer.status_code == 422
        assert 'id="email-error"' in answer.get_data(as_text=True)
    submit(admin, PAGE, f"{PAGE}/2/remove")
    assert "At least one recipient is required." in submit(admin, PAGE, f"{PAGE}/3/remove", htmx=True).get_data(
        as_text=True
    )
    assert [each[0] for each in state(app)] == ["new@acme.example"]


def test_several_recipients_are_pasted_at_once(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    submit(admin, PAGE, email="Doe, Ann <ann@acme.example> mailto:bea@acme.example ops@acme.example")
    assert [each[0] for each in state(app)][2:] == ["ann@acme.example", "bea@acme.example"]
    assert "is not supported here" in submit(admin, PAGE, email="täst@acme.example").text


@pytest.mark.slow
@pytest.mark.parametrize("action", ["remove", "events", "pause", "resume"])
@pytest.mark.parametrize("number", [3, 99, 2**31])
def test_recipients_of_other_tenants_do_not_exist(
    app: Flask, admin: FlaskClient, working_tenant: str, globex: str, action: str, number: int
) -> None:
    with app.app_context():
        other = tenant_service.find(globex)
        assert other is not None
        enter_scope(other.id)
        recipients.replace(other, ["boss@globex.example"])
    assert submit(admin, PAGE, f"{PAGE}/{number}/{action}", until=SOON).status_code == 404


@pytest.mark.parametrize("action", ["pause", "resume", "events", "remove"])
def test_a_concurrently_removed_recipient_does_not_exist(
    app: Flask, admin: FlaskClient, working_tenant: str, action: str
) -> None:
    form = {
        "csrf_token": csrf_token(admin.get(PAGE).get_data(as_text=True)),
        "until": SOON,
        "event": ["queue.call_lost"],
    }
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        first, *_ = recipients.lock_recipients(tenant)
        with blocked_until_done(app, lambda: admin.post(f"{PAGE}/{first.id}/{action}", data=form)) as answer:
            recipients.remove(tenant, first)
            assert answer.result().status_code == 404


def test_the_last_result_of_each_recipient(admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    assert admin.get(PAGE).text.count("Not in the last 500 emails") == 2
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 <night@acme.example> user unknown"]}
    assert post().json["status"] == "partial"
    html = admin.get(PAGE).text
    assert "Not in the last 500 emails" not in html
    assert "The mail server says that this mailbox does not exist" in html
    assert "550 5.1.1 &lt;night@acme.example&gt; user unknown" in html
    peer.script = {}
    assert post().json["status"] == "sent"
    assert "user unknown" not in admin.get(PAGE).text


def test_an_event_is_chosen_for_all_or_those_that_are_shown(
    app: Flask, admin: FlaskClient, working_tenant: str
) -> None:
    lost = f"{PAGE}/events/queue.call_lost"
    answer = submit(admin, PAGE, lost, all="off", q="NIGHT")
    assert (answer.status_code, answer.location) == (303, f"{PAGE}?q=NIGHT")
    assert [each[1] for each in state(app)] == [[], ["queue.call_lost"]]
    submit(admin, PAGE, lost, all="off")
    assert [each[1] for each in state(app)] == [["queue.call_lost"]] * 2
    html = submit(admin, PAGE, lost, htmx=True, all="on").get_data(as_text=True)
    assert html.lstrip().startswith('<div id="recipients">')
    assert [each[1] for each in state(app)] == [[], []]
    assert submit(admin, PAGE, f"{PAGE}/events/queue.nothing", all="on").status_code == 404


def test_fifty_recipients_can_be_searched(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    assert 'id="recipient-search"' not in admin.get(PAGE).text
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, [f"{'long' * 10}.{number}@{'x' * 60}.example" for number in range(50)])
    assert admin.get(PAGE).text.count('<tbody id="recipient-') == 50
    page = admin.get(f"{PAGE}?q=LONG.4").text
    assert page.count('<tbody id="recipient-') == 11
    assert "11 of 50 recipients" in page
    assert 'value="LONG.4"' in page


def test_queues_and_quiet_hours_are_edited(app: Flask, admin: FlaskClient, working_tenant: str) -> None:
    page = f"{PAGE}/1"
    form: dict[str, Any] = {"event": all_but(), "queues": "8000, 8000", "quiet_day": [5, 6], "quiet_from": "00:00:00"}
    assert "Quiet hours need days and both times." in submit(admin, page, **form).text
    answer = submit(admin, page, quiet_until="00:00", urgent_event=["queue.call_lost"], **form)
    assert (answer.status_code, answer.location) == (303, PAGE)
    html = admin.get(PAGE).text
    assert "Queues: 8000<" in html
    assert "Quiet hours: 00:00 to 00:00 (Sat, Sun)" in html
    html = admin.get(page).text
    assert re.search(r'name="urgent_event" value="queue.call_lost" checked', html)
    assert admin.get(f"{PAGE}/99").status_code == 404
