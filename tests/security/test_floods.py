"""Floods of requests that cost much: sign-ins, searches, and the events of strangers."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Lock, Thread
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from passlib.context import CryptContext
from werkzeug.test import TestResponse

from portal.accounts import rate_limits
from portal.accounts import service as account_service
from portal.accounts.passwords import HASHING
from portal.deliveries import search
from portal.events.parsing import Envelope
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.pbx import api_keys, webhook_views
from tests.conftest import SignIn, make_account
from tests.pages import HTMX, PASSWORD, csrf_token
from tests.processes import wait_for
from tests.sql import sql
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

EMAIL = "admin@acme.example"
LOG = "/tenants/acme.example/deliveries"
IDLE_IN_TRANSACTION = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in %'"


class Gate:
    """Stops what passes until it is opened, and counts what is stopped at the moment and was at most."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock, self._opened = Lock(), Event()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, which stops at the gate first."""

        def stopped(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self._opened.wait(60)
            with self._lock:
                self.inside -= 1
            return function(*arguments, **options)

        return stopped

    def open(self) -> None:
        """Stop nothing any more."""
        self._opened.set()


@contextmanager
def at_once(requests: Sequence[Callable[[], TestResponse]]) -> Iterator[list[TestResponse]]:
    """Send these requests at once during the block. Yields their responses, as they arrive."""
    answers: list[TestResponse] = []
    threads = [Thread(target=lambda request=request: answers.append(request())) for request in requests]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        for thread in threads:
            thread.join()


def sign_in_request(app: Flask, email: str, address: str) -> Callable[[], TestResponse]:
    browser = app.test_client()
    token = csrf_token(browser.get("/sign-in").text)
    data = {"csrf_token": token, "email": email, "password": "wrong wrong wrong"}
    return lambda: browser.post("/sign-in", data=data, environ_overrides={"REMOTE_ADDR": address})


def test_one_password_is_hashed_at_a_time_and_few_requests_wait(
    app: Flask, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sign_in(EMAIL)
    token = csrf_token(known.get("/account/password").text)
    sign_ins = [
        sign_in_request(app, EMAIL if number % 2 else f"nobody{number}@x.example", f"192.0.2.{number}")
        for number in range(12)
    ]
    gate = Gate()
    for name in ("hash", "verify"):
        monkeypatch.setattr(CryptContext, name, gate.around(getattr(CryptContext, name)))
    monkeypatch.setattr("portal.accounts.passwords.HASHING.max_wait", 20)
    with at_once(sign_ins) as answers, ExitStack() as opened:
        opened.callback(gate.open)
        wait_for(lambda: len(answers) == 8)
        assert [answer.status_code for answer in answers] == [429] * 8
        assert all(0 < int(answer.headers["Retry-After"]) < 10 for answer in answers)
        assert all("The portal is busy" in answer.text for answer in answers)
        assert gate.inside == 1
        with app.app_context():
            assert sql(IDLE_IN_TRANSACTION) == [], "who waits holds no connection"
            db.session.rollback()
        # Whatever needs a hash is answered in the same way.
        new = {"new_password": "a new long password", "new_password_confirm": "a new long password"}
        data = {"csrf_token": token, "password": PASSWORD, **new}
        assert known.post("/account/password", data=data).status_code == 429
        assert known.post("/account/confirm", data={"csrf_token": token, "password": PASSWORD}).status_code == 429
        assert known.get("/account").status_code == 200
    assert gate.most == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 8


def test_a_flood_does_not_reveal_accounts(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    make_account(app, EMAIL)
    monkeypatch.setattr(rate_limits, "count", lambda *_, **__: None)
    monkeypatch.setattr("portal.accounts.passwords.HASHING.max_wait", 0)
    requests = [sign_in_request(app, email, "192.0.2.1") for email in (EMAIL, "nobody@acme.example")]
    with ExitStack() as held:
        with app.app_context():
            held.enter_context(HASHING.hold())
        known, unknown = (request() for request in requests)
    assert known.status_code == unknown.status_code == 429
    assert known.headers["Retry-After"] == unknown.headers["Retry-After"]


def test_an_account_searches_its_log_once_at_a_time(
    app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = admin.get_cookie("session")
    assert cookie
    other = sign_in("other@acme.example", administers=acme)

    def search_request() -> TestResponse:
        browser = app.test_client()
        browser.set_cookie("session", cookie.value)
        return browser.get(f"{LOG}?q=h5")

    gate = Gate()
    monkeypatch.setattr(search.SEARCHES, "max_wait", 20)
    with monkeypatch.context() as patched:
        patched.setattr("portal.deliveries.delivery_log.search_events", gate.around(search.search_events))
        with at_once([search_request] * 10) as answers, ExitStack() as opened:
            opened.callback(gate.open)
            wait_for(lambda: len(answers) == 7)
            assert [answer.status_code for answer in answers] == [429] * 7
            assert gate.inside == 1
            monkeypatch.setattr(search.SEARCHES, "max_wait", 0.1)
            newest = "01900000-0000-7000-8000-000000000000"
            updates = admin.get(f"{LOG}/updates?q=h5&newest={newest}", headers=HTMX)
            assert updates.status_code == 204, "an open page asks again"
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 7
    with ExitStack() as held:
        with app.app_context():
            account = account_service.find(EMAIL)
            assert account
            held.enter_context(search.SEARCHES.hold(account.id))
        assert other.get(f"{LOG}?q=h5").status_code == 200
        assert admin.get(LOG).status_code == 200, "the newest events are no search"
        assert admin.get(f"{LOG}?queue=1", headers=HTMX).status_code == 429


def test_an_error_page_needs_no_database(
    app: Flask, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with app.app_context():
        engine, pool = db.engine, cast("Any", db.engine.pool)
    with ExitStack() as taken:
        monkeypatch.setattr(pool, "_timeout", 0.05)
        for _ in range(pool.size() + pool._max_overflow):
            taken.enter_context(engine.connect())
        for headers in ({}, HTMX):
            answer = admin.get("/account", headers=headers)
            assert answer.status_code == 503, answer.text
            assert "The portal is not available" in answer.text
            assert answer.headers["Retry-After"] == "10"
    assert admin.get("/account").status_code == 200


STRANGERS = [{}, {"Authorization": "Bearer pbx_nobodys"}, {"Authorization": "Bearer x"}]


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/events/portsip"])
@pytest.mark.parametrize("headers", STRANGERS)
def test_the_body_of_a_stranger_is_not_parsed(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str, headers: dict[str, str]
) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(webhook_views, "_read_body", lambda *_, **__: read.append(b""))
    for body in ("{}", "[]", "", "{" * 60_000):
        answer = client.post(path, data=body, headers={"Content-Type": "application/json", **headers})
        assert answer.status_code == 401, body[:9]
    assert not read
    with app.app_context():
        assert sql("SELECT sum(count) FROM rejected_requests")[0][0] == 4


def test_a_valid_key_is_looked_up_once_before_the_body(
    client: FlaskClient, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post().status_code == 200
    monkeypatch.setattr(api_keys, "IS_ISSUED_SQL", "SELECT 1 / 0")
    assert post().status_code == 200


def test_repeated_names_cost_time_in_proportion_to_the_body(client: FlaskClient, key: str) -> None:
    def seconds(count: int) -> float:
        names = ",".join(f'"n{number}":1' for number in range(count))
        body = '{"type": "queue.call_lost", "data": {' + names + "," + names + "}}"
        began = time.thread_time()  # which other processes do not change
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        answer = client.post("/api/v1/events", data=body, headers=headers)
        assert answer.status_code in {200, 422}, answer.text
        assert len(answer.data) < 2_000
        return time.thread_time() - began

    seconds(10)
    few, many = (min(seconds(count) for _ in range(3)) for count in (250, 2_500))
    assert many < 30 * few


def test_the_warnings_about_an_event_are_bounded(
    app: Flask, client: FlaskClient, key: str, working_tenant: str
) -> None:
    user = EVENT_TYPES["user.created"]
    data = dict.fromkeys(user.fields.model_fields) | {"extension_number": "1001", "extension_password": "x1"}
    event = dict.fromkeys(Envelope.model_fields) | {"type": user.type, "data": data}
    inner = json.dumps(data)[1:-1]
    outer = json.dumps(event | {"data": {}})[1:-2].rpartition("{")[0]
    body = f"{{{outer} {{}}, {outer} {{{inner}, {inner}}}}}"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = client.post("/api/v1/events", data=body, headers=headers)
    assert answer.status_code == 200, answer.text
    warnings, repeated = answer.get_json()["warnings"], len(event) + len(data)
    assert len(warnings) == 21
    assert warnings[-1] == {"field": "data", "message": f"Further warnings, not listed: {repeated - 20}."}
    with app.app_context():
        assert sql("SELECT jsonb_array_length(warnings) FROM events") == [(21,)]
