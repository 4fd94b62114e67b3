"""The page "Connect a PBX": the key that stands in its lines, and what it says has come."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.pbx import keys
from portal.tenants import directory
from tests.pages import HTMX, csrf_token
from tests.ready import CALL_LOST, Post
from tests.sql import sql

PAGE = "/tenants/acme.example/connect"


def issue(admin: FlaskClient, name: str = "Main PBX", **headers: str) -> str:
    """Issue a key on the page, and return the answer."""
    token = csrf_token(admin.get(PAGE).text)
    answer = admin.post(PAGE, data={"csrf_token": token, "name": name}, headers=headers)
    assert answer.cache_control.no_store
    return answer.text


def secret_in(page: str) -> str:
    found = re.search(r'id="new-key">(pbx_[\w-]+)<', page)
    assert found
    return found[1]


def arrival(admin: FlaskClient) -> str:
    return admin.get(f"{PAGE}/arrival", headers=HTMX).text


def report(client: FlaskClient, secret: str, **data: object) -> int:
    body = {"type": "queue.call_lost", "data": CALL_LOST | data}
    return client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_the_key_stands_in_each_make_s_lines_once(admin: FlaskClient, ready: str) -> None:
    assert "Bearer KEY" in admin.get(PAGE).text
    page = issue(admin)
    assert page.count(secret_in(page)) == 5, "beside itself in the lines of four makes"
    assert secret_in(page) not in admin.get(PAGE).text


def test_the_chosen_tab_stays_chosen_when_a_key_is_issued(admin: FlaskClient, ready: str) -> None:
    assert re.search(r'pbx=asterisk"[^>]*aria-current="true"', admin.get(f"{PAGE}?pbx=asterisk").text)
    current = {**HTMX, "HX-Current-URL": f"http://portal.test{PAGE}?pbx=portsip"}
    fragment = issue(admin, **current)
    assert fragment.lstrip().startswith('<div class="numbered" id="connect">')
    assert re.search(r'pbx=portsip"[^>]*aria-current="true"', fragment)
    assert re.search(r'pbx=curl"[^>]*aria-current="true"', admin.get(f"{PAGE}?pbx=nonsense").text)
    assert admin.get(PAGE, headers={**HTMX, "HX-Current-URL": "http://["}).status_code == 200


def test_a_key_needs_a_name(admin: FlaskClient, ready: str) -> None:
    token = csrf_token(admin.get(PAGE).text)
    answer = admin.post(PAGE, data={"csrf_token": token, "name": ""}, headers=HTMX)
    assert (answer.status_code, "Enter a name for the key." in answer.text) == (422, True)


def test_it_waits_tells_why_a_call_was_refused_and_turns_green(
    app: Flask, admin: FlaskClient, client: FlaskClient, ready: str
) -> None:
    assert "Begin with a key." in arrival(admin)
    secret = secret_in(issue(admin))
    assert "Waiting for the first event with the key Main PBX" in arrival(admin)
    assert report(client, secret, caller_number=None) == 422
    waiting = arrival(admin)
    assert "data-look" in waiting
    assert "Wrong fields" in waiting
    assert "data.caller_number" in waiting
    assert report(client, secret) == 200
    connected = arrival(admin)
    assert "Connected: the first event came." in connected
    assert "Call lost" in connected
    assert "from key Main PBX" in connected
    assert "data-look" not in connected
    assert "Wrong fields" not in connected
    assert report(client, secret) == 200
    assert "Connected: the last event came." in arrival(admin)
    assert "Another key is in use." in (issue(admin, "Second PBX") and arrival(admin))


def test_nothing_new_is_not_swapped(admin: FlaskClient, client: FlaskClient, ready: str) -> None:
    secret = secret_in(issue(admin))
    seen = re.search(r'hx-get="([^"]+)"', arrival(admin))
    assert seen
    again = seen[1].replace("&amp;", "&")
    assert admin.get(again, headers=HTMX).status_code == 204
    report(client, secret, caller_number=None)
    assert admin.get(again, headers=HTMX).status_code == 200


def test_a_sample_and_a_digest_are_no_event_of_a_pbx(app: Flask, admin: FlaskClient, ready: str, post: Post) -> None:
    token = csrf_token(admin.get(PAGE).text)
    admin.post("/tenants/acme.example/samples", data={"csrf_token": token, "event": "queue.call_lost"})
    assert "Connected" not in arrival(admin)
    assert post().status_code == 200
    assert "Connected" in arrival(admin)
    with app.app_context():
        sql("UPDATE events SET type = 'queue.digest'")
    assert "Connected" not in arrival(admin)


def test_a_key_of_the_system_connects_too(admin: FlaskClient, client: FlaskClient, ready: str, system_key: str) -> None:
    body = {"type": "queue.call_lost", "tenant": ready, "data": CALL_LOST}
    client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"})
    assert "Connected: the first event came." in arrival(admin)
    assert "from key" not in arrival(admin)


def test_rejected_calls_of_others_are_not_told(
    app: Flask, admin: FlaskClient, client: FlaskClient, ready: str, globex: str
) -> None:
    with app.app_context():
        theirs = keys.issue(directory.find(globex)).secret
    issue(admin)
    assert report(client, theirs, caller_number=None) == 422
    assert "Wrong fields" not in arrival(admin)


@pytest.mark.parametrize("page", ["keys", "deliveries"])
def test_other_pages_lead_here(admin: FlaskClient, ready: str, page: str) -> None:
    assert f'href="{PAGE}">Connect a PBX</a>' in admin.get(f"/tenants/{ready}/{page}").text


def test_lines_for_a_pbx_are_the_same_in_every_language(admin: FlaskClient, ready: str) -> None:
    english = admin.get(PAGE).text
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "zh"
    chinese = admin.get(PAGE).text
    assert "正在等待第一个事件" in chinese
    lines = re.compile(r'<code class="code".*?</code>', re.S)
    assert lines.findall(english) == lines.findall(chinese)
