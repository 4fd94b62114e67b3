"""The page of a tenant's recipients."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.notifications import recipients
from portal.notifications.kinds import KINDS
from portal.tenants import directory
from tests.meanwhile import meanwhile
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.ready import Post, key, peer, post, ready
from tests.smtp_peer import SmtpPeer

__all__ = ["key", "peer", "post", "ready"]

PAGE = "/tenants/acme.example/recipients"
TODAY = datetime.now(ZoneInfo("Europe/Berlin")).date()
SOON = str(TODAY + timedelta(days=9))


def state(app: Flask) -> list[tuple[str, list[str], bool]]:
    with app.app_context():
        tenant = directory.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        return [(each.address, each.excluded_events, each.is_paused) for each in recipients.listed()]


def all_but(*event_types: str) -> Iterable[str]:
    return [each for each in KINDS if each not in event_types]


def test_who_gets_what_is_chosen(app: Flask, admin: FlaskClient, ready: str) -> None:
    answer = submit(admin, PAGE, f"{PAGE}/1/events", event=all_but("queue.call_lost"))
    assert (answer.status_code, answer.location) == (303, PAGE)
    assert state(app)[0] == ("ops@acme.example", ["queue.call_lost"], False)
    assert "Nobody gets" not in admin.get(PAGE).text
    assert "Nobody gets: Call lost." in submit(
        admin, PAGE, f"{PAGE}/2/events", htmx=True, event=all_but("queue.call_lost")
    ).get_data(as_text=True)


def test_a_kind_that_does_not_exist_is_refused(app: Flask, admin: FlaskClient, ready: str) -> None:
    assert submit(admin, PAGE, f"{PAGE}/1/events", event=["queue.nothing"]).status_code == 400
    assert state(app)[0][1] == []


def test_a_pause_and_its_end(app: Flask, admin: FlaskClient, ready: str) -> None:
    assert submit(admin, PAGE, f"{PAGE}/1/pause", until=SOON).status_code == 303
    assert state(app)[0][2]
    day = f"{date.fromisoformat(SOON).day} {date.fromisoformat(SOON):%B}"
    assert f"Paused until {day}" in admin.get(PAGE).text
    html = submit(admin, PAGE, f"{PAGE}/1/resume", htmx=True).get_data(as_text=True)
    assert html.lstrip().startswith('<div id="recipients">')
    assert "Paused until" not in html
    assert not state(app)[0][2]


@pytest.mark.parametrize("until", ["", "nonsense", "2020-01-01", "2999-01-01", str(TODAY)])
def test_a_pause_until_another_day_is_refused(app: Flask, admin: FlaskClient, ready: str, until: str) -> None:
    answer = submit(admin, PAGE, f"{PAGE}/1/pause", until=until)
    assert answer.status_code == 422
    assert 'id="until-1-error"' in answer.text
    assert not state(app)[0][2]


def test_one_is_added_and_one_removed(app: Flask, admin: FlaskClient, ready: str) -> None:
    assert submit(admin, PAGE, address="new@acme.example").status_code == 303
    assert submit(admin, PAGE, f"{PAGE}/1/remove").status_code == 303
    assert [each[0] for each in state(app)] == ["night@acme.example", "new@acme.example"]
    for wrong in ("", "nobody", "new@acme.example"):
        answer = submit(admin, PAGE, htmx=True, address=wrong)
        assert answer.status_code == 422
        assert 'id="address-error"' in answer.get_data(as_text=True)
    submit(admin, PAGE, f"{PAGE}/2/remove")
    assert "Somebody has to get the mail." in submit(admin, PAGE, f"{PAGE}/3/remove", htmx=True).get_data(as_text=True)
    assert [each[0] for each in state(app)] == ["new@acme.example"]


@pytest.mark.parametrize("action", ["remove", "events", "pause", "resume"])
@pytest.mark.parametrize("number", [3, 99, 2**31])
def test_those_of_others_do_not_exist(
    app: Flask, admin: FlaskClient, ready: str, globex: str, action: str, number: int
) -> None:
    with app.app_context():
        other = directory.find(globex)
        assert other is not None
        enter_scope(other.id)
        recipients.replace(other, ["boss@globex.example"])
    assert submit(admin, PAGE, f"{PAGE}/{number}/{action}", until=SOON).status_code == 404


@pytest.mark.parametrize("action", ["pause", "resume", "events", "remove"])
def test_one_that_is_removed_meanwhile_does_not_exist(app: Flask, admin: FlaskClient, ready: str, action: str) -> None:
    form = {
        "csrf_token": csrf_token(admin.get(PAGE).get_data(as_text=True)),
        "until": SOON,
        "event": ["queue.call_lost"],
    }
    with app.app_context():
        tenant = directory.find(ready)
        assert tenant is not None
        enter_scope(tenant.id)
        first, *_ = recipients.to_change(tenant)
        with meanwhile(app, lambda: admin.post(f"{PAGE}/{first.id}/{action}", data=form)) as answer:
            recipients.remove(tenant, first)
            assert answer.result().status_code == 404


def test_the_last_outcome_of_each_address(admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer) -> None:
    assert admin.get(PAGE).text.count("No mail among the last 500") == 2
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 <night@acme.example> user unknown"]}
    assert post().json["status"] == "partial"
    html = admin.get(PAGE).text
    assert "No mail among the last 500" not in html
    assert "The mail server says that there is no such mailbox" in html
    assert "550 5.1.1 &lt;night@acme.example&gt; user unknown" in html
    peer.script = {}
    assert post().json["status"] == "sent"
    assert "user unknown" not in admin.get(PAGE).text
