"""The page "Connect a PBX": the key in its snippets, and its connection status."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.pbx import api_keys
from portal.pbx.adapters.registry import ADAPTERS
from portal.tenants import service as tenant_service
from tests.pages import HTMX, csrf_token
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post

PAGE = "/tenants/acme.example/connect"


def issue(admin: FlaskClient, name: str = "Main PBX", **headers: str) -> str:
    """Issue a key on the page, and return the page."""
    token = csrf_token(admin.get(PAGE).text)
    response = admin.post(PAGE, data={"csrf_token": token, "name": name}, headers=headers)
    assert response.cache_control.no_store
    return response.text


def key_in(page: str) -> str:
    match = re.search(r'id="new-key">(pbx_[\w-]+)<', page)
    assert match
    return match[1]


def connection_status(admin: FlaskClient) -> str:
    return admin.get(f"{PAGE}/status", headers=HTMX).text


def report(client: FlaskClient, key: str, **data: object) -> int:
    body = {"type": "queue.call_lost", "data": CALL_LOST | data}
    return client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"}).status_code


def test_the_key_is_filled_in_once_in_each_snippet(admin: FlaskClient, working_tenant: str) -> None:
    assert "Bearer KEY" in admin.get(PAGE).text
    page = issue(admin)
    assert page.count(key_in(page)) == 1 + len(ADAPTERS), "above the snippets, and in each of them"
    assert key_in(page) not in admin.get(PAGE).text


def test_the_chosen_tab_stays_open_when_a_key_is_issued(admin: FlaskClient, working_tenant: str) -> None:
    assert re.search(r'pbx=asterisk"[^>]*aria-current="true"', admin.get(f"{PAGE}?pbx=asterisk").text)
    current = {**HTMX, "HX-Current-URL": f"http://portal.test{PAGE}?pbx=portsip"}
    fragment = issue(admin, **current)
    assert fragment.lstrip().startswith('<div class="numbered" id="connect">')
    assert re.search(r'pbx=portsip"[^>]*aria-current="true"', fragment)
    assert re.search(r'pbx=curl"[^>]*aria-current="true"', admin.get(f"{PAGE}?pbx=nonsense").text)
    assert admin.get(PAGE, headers={**HTMX, "HX-Current-URL": "http://["}).status_code == 200


def test_a_key_needs_a_name(admin: FlaskClient, working_tenant: str) -> None:
    token = csrf_token(admin.get(PAGE).text)
    response = admin.post(PAGE, data={"csrf_token": token, "name": ""}, headers=HTMX)
    assert (response.status_code, "Enter a name for the key." in response.text) == (422, True)


def test_it_waits_shows_why_a_request_was_rejected_and_turns_green(
    app: Flask, admin: FlaskClient, client: FlaskClient, working_tenant: str
) -> None:
    assert "Start by issuing a key." in connection_status(admin)
    key = key_in(issue(admin))
    assert "Waiting for the first event with the key Main PBX" in connection_status(admin)
    assert report(client, key, queue_number=None) == 422
    waiting = connection_status(admin)
    assert "data-poll" in waiting
    assert "Wrong fields" in waiting
    assert "data.queue_number" in waiting
    assert report(client, key) == 200
    connected = connection_status(admin)
    assert "Connected. The first event:" in connected
    assert "When a queue call is lost" in connected
    assert "from key Main PBX" in connected
    assert "data-poll" not in connected
    assert "Wrong fields" not in connected
    assert report(client, key) == 200
    assert "Connected. The last event:" in connection_status(admin)
    assert "Another key is in use." in (issue(admin, "Second PBX") and connection_status(admin))


def test_an_unchanged_status_is_not_sent_again(admin: FlaskClient, client: FlaskClient, working_tenant: str) -> None:
    key = key_in(issue(admin))
    match = re.search(r'hx-get="([^"]+)"', connection_status(admin))
    assert match
    url = match[1].replace("&amp;", "&")
    assert admin.get(url, headers=HTMX).status_code == 204
    report(client, key, queue_number=None)
    assert admin.get(url, headers=HTMX).status_code == 200


def test_a_sample_and_a_digest_do_not_count_as_events(
    app: Flask, admin: FlaskClient, working_tenant: str, post: Post
) -> None:
    token = csrf_token(admin.get(PAGE).text)
    admin.post("/tenants/acme.example/samples", data={"csrf_token": token, "event": "queue.call_lost"})
    assert "Connected" not in connection_status(admin)
    assert post().status_code == 200
    assert "Connected" in connection_status(admin)
    with app.app_context():
        sql("UPDATE events SET type = 'queue.digest'")
    assert "Connected" not in connection_status(admin)


def test_a_system_key_connects_too(
    admin: FlaskClient, client: FlaskClient, working_tenant: str, system_key: str
) -> None:
    body = {"type": "queue.call_lost", "tenant": working_tenant, "data": CALL_LOST}
    client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {system_key}"})
    assert "Connected. The first event:" in connection_status(admin)
    assert "from key" not in connection_status(admin)


def test_rejected_requests_of_other_tenants_are_not_shown(
    app: Flask, admin: FlaskClient, client: FlaskClient, working_tenant: str, globex: str
) -> None:
    with app.app_context():
        theirs = api_keys.issue(tenant_service.find(globex)).secret
    issue(admin)
    assert report(client, theirs, queue_number=None) == 422
    assert "Wrong fields" not in connection_status(admin)


@pytest.mark.parametrize("page", ["keys", "deliveries"])
def test_other_pages_link_to_it(admin: FlaskClient, working_tenant: str, page: str) -> None:
    assert f'href="{PAGE}">Connect a PBX</a>' in admin.get(f"/tenants/{working_tenant}/{page}").text


def test_snippets_are_the_same_in_every_language(admin: FlaskClient, working_tenant: str) -> None:
    english = admin.get(PAGE).text
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "zh"
    chinese = admin.get(PAGE).text
    assert "正在等待第一个事件" in chinese
    snippets = re.compile(r'<code class="code".*?</code>', re.S)
    assert snippets.findall(english) == snippets.findall(chinese)
