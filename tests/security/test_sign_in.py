"""Attacks on signing in: guessing, finding out who has an account, stealing and replaying what was typed."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text, update
from werkzeug.test import TestResponse

from portal import create_app, statements
from portal.accounts import door, registration, throttle
from portal.accounts.models import Account, Attempts
from portal.accounts.throttle import Limit
from portal.config import Settings
from portal.extensions import db
from tests.authenticator import SET_UP, give_code, give_password, is_signed_in, set_up
from tests.conftest import SignIn
from tests.mail_servers.test_account_mail import through
from tests.pages import PASSWORD, csrf_token, post
from tests.smtp_peer import SmtpPeer

EMAIL = "admin@acme.example"
WRONG = "wrong wrong wrong"


def guess(browser: FlaskClient, email: str = EMAIL, address: str = "192.0.2.1", path: str = "/sign-in") -> TestResponse:
    """Try a password, from an address."""
    token = csrf_token(browser.get(path).get_data(as_text=True))
    data = {"csrf_token": token, "email": email, "password": WRONG}
    return browser.post(path, data=data, environ_overrides={"REMOTE_ADDR": address})


@pytest.fixture
def account(app: Flask) -> str:
    with app.app_context():
        registration.add(EMAIL, PASSWORD)
    return EMAIL


@pytest.fixture
def another_process(settings: Settings) -> Iterator[FlaskClient]:
    """A browser whose requests another process of the portal answers."""
    app = create_app(settings)
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()
        statements.dispose()


def limit(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    """Make limits of signing in small enough for a test."""
    rule = replace(throttle.SIGN_IN, **limits)
    monkeypatch.setitem(door.THROTTLED, "security.login", rule)


def test_guessing_at_an_account_is_stopped_whether_or_not_it_exists(app: Flask, account: str) -> None:
    answers = {}
    for email in (EMAIL, "nobody@acme.example"):
        browser = app.test_client()
        tries = [guess(browser, email) for _ in range(12)]
        assert [each.status_code for each in tries] == [200] * 10 + [429] * 2
        assert 0 < int(tries[-1].headers["Retry-After"]) <= 90
        answers[email] = re.sub(r'"X-CSRFToken": "[^"]*"', "", tries[-1].get_data(as_text=True))
    assert "Too many tries" in answers[EMAIL]
    assert answers[EMAIL] == answers["nobody@acme.example"]
    browser = app.test_client()
    assert give_password(browser, EMAIL).status_code == 302, "its owner comes in from elsewhere"


def test_the_right_password_does_not_help_who_guessed_too_often(app: Flask, account: str) -> None:
    browser = app.test_client()
    for _ in range(10):
        guess(browser, address="127.0.0.1")
    assert give_password(browser, EMAIL).status_code == 429


def test_all_processes_count_together(app: Flask, account: str, another_process: FlaskClient) -> None:
    here = app.test_client()
    answers = [guess(each).status_code for _ in range(6) for each in (here, another_process)]
    assert answers == [200] * 10 + [429] * 2


def test_many_guesses_at_the_same_moment_are_all_counted(app: Flask, account: str) -> None:
    waits: list[int] = []

    def count() -> None:
        with app.app_context():
            waits.append(throttle.count(throttle.SIGN_IN, EMAIL, "192.0.2.1"))

    threads = [threading.Thread(target=count) for _ in range(24)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(wait == 0 for wait in waits) == 10
    with app.app_context():
        statements.dispose()


def test_guessing_from_many_addresses_is_stopped(
    app: Flask, account: str, monkeypatch: pytest.MonkeyPatch, client: FlaskClient
) -> None:
    limit(monkeypatch, account=Limit(4, 3600))
    answers = [guess(client, address=f"198.51.100.{number}").status_code for number in range(6)]
    assert answers == [200] * 4 + [429] * 2


def test_one_password_at_many_accounts_is_stopped(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, address=Limit(4, 3600))
    answers = [guess(client, f"person{number}@acme.example").status_code for number in range(6)]
    assert answers == [200] * 4 + [429] * 2
    assert guess(client, "person9@acme.example", "192.0.2.2").status_code == 200


def test_a_network_of_ipv6_is_one_address(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, address=Limit(4, 3600))
    answers = [guess(client, f"p{n}@acme.example", f"2001:db8::{n:x}").status_code for n in range(1, 7)]
    assert answers == [200] * 4 + [429] * 2
    assert guess(client, "p9@acme.example", "2001:db8:0:1::1").status_code == 200


@pytest.mark.parametrize("spelling", ["ADMIN@acme.example", "admin@ACME.example", "admin@acme。example"])
def test_another_spelling_of_the_account_is_no_fresh_start(client: FlaskClient, account: str, spelling: str) -> None:
    for _ in range(10):
        guess(client)
    assert guess(client, spelling).status_code == 429


def test_letters_that_postgres_takes_for_latin_ones_find_no_account(client: FlaskClient, account: str) -> None:
    for spelling in ("admİn@acme.example", "adm\u0131n@acme.example", "\u212adm\u0131n@acme.example"):
        assert give_password(client, spelling).status_code == 200


def test_what_is_counted_runs_empty_and_is_forgotten(context: Flask) -> None:
    for _ in range(11):
        wait = throttle.count(throttle.SIGN_IN, EMAIL, "192.0.2.1")
    assert wait > 0
    db.session.execute(update(Attempts).values(empty_at=Attempts.empty_at - timedelta(seconds=wait)))
    db.session.commit()
    assert throttle.count(throttle.SIGN_IN, EMAIL, "192.0.2.1") == 0
    for _ in range(100):
        last = throttle.count(throttle.SIGN_IN, EMAIL, "192.0.2.1")
    assert last <= 90, "hammering makes nobody wait longer"
    throttle.count(throttle.SIGN_IN, "other@acme.example", "192.0.2.2")
    db.session.execute(update(Attempts).values(empty_at=datetime.now(UTC) - timedelta(seconds=1)))
    db.session.commit()
    throttle.purge()
    assert db.session.scalars(select(Attempts)).all() == []


def test_what_was_typed_is_not_stored(context: Flask) -> None:
    throttle.count(throttle.SIGN_IN, "my secret password, in the wrong field", "192.0.2.1")
    stored = db.session.scalar(text("SELECT string_agg(attempts::text, '') FROM attempts"))
    assert stored
    assert "secret" not in stored
    assert b"secret".hex() not in stored


def test_forgotten_passwords_are_no_mail_bomb(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer() as peer:
        through(app, peer.port)
        for email in (EMAIL, "nobody@acme.example"):
            answers = [guess(client, email, f"198.51.100.{n}", "/forgotten-password").status_code for n in range(7)]
            assert answers == [200] * 5 + [429] * 2
        end = time.monotonic() + 5
        while len(peer.mails) < 5 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(peer.mails) == 5


def test_links_cannot_be_guessed_and_who_tries_keeps_nobody_else_out(client: FlaskClient) -> None:
    token = csrf_token(client.get("/forgotten-password").get_data(as_text=True))

    def attempt(number: int, address: str) -> int:
        new = {"password": PASSWORD, "password_confirm": PASSWORD, "csrf_token": token}
        place = {"REMOTE_ADDR": address}
        return client.post(f"/forgotten-password/guess{number}", data=new, environ_overrides=place).status_code

    assert [attempt(number, "192.0.2.1") for number in range(31)] == [302] * 30 + [429]
    assert attempt(31, "192.0.2.2") == 302


def test_codes_cannot_be_guessed(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    thief = app.test_client()
    give_password(thief, EMAIL)
    answers = [give_code(thief, f"{number:06}").status_code for number in range(10)]
    assert answers == [200] * 10
    assert give_code(thief, phone.code()).status_code == 429
    assert post(thief, "/sign-in/recovery-code", code="0").status_code == 429
    give_password(thief, EMAIL)
    assert give_code(thief, phone.code()).status_code == 429


def test_who_sits_at_somebody_elses_browser_cannot_guess_the_password(admin: FlaskClient) -> None:
    answers = [post(admin, "/account/confirm", password=WRONG).status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]
    assert post(admin, "/account/password", password=WRONG).status_code == 429


def fastest(rounds: int, attempt: Callable[[str], object], *emails: str) -> list[float]:
    """Return the shortest time of each, tried in turn."""
    times: dict[str, list[float]] = {email: [] for email in emails}
    for _ in range(rounds):
        for email in emails:
            before = time.perf_counter()
            attempt(email)
            times[email].append(time.perf_counter() - before)
    return [min(each) for each in times.values()]


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "count", lambda *_: 0)


def test_the_time_of_signing_in_does_not_tell_who_has_an_account(
    client: FlaskClient, account: str, unlimited: None
) -> None:
    known, unknown = fastest(5, lambda email: guess(client, email), EMAIL, "nobody@acme.example")
    assert 0.6 < known / unknown < 1.6


def test_the_time_of_forgetting_a_password_does_not_tell_either(
    client: FlaskClient, account: str, unlimited: None
) -> None:
    known, unknown = fastest(
        20, lambda email: guess(client, email, path="/forgotten-password"), EMAIL, "nobody@acme.example"
    )
    assert abs(known - unknown) < 0.02


def test_a_disabled_account_is_no_account(app: Flask, client: FlaskClient, account: str) -> None:
    with app.app_context():
        db.session.execute(update(Account).values(active=False))
        db.session.commit()
    answer = give_password(client, EMAIL)
    assert "is not right" in answer.get_data(as_text=True)
    assert not is_signed_in(client)


def test_a_code_is_not_accepted_twice(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    first, second = app.test_client(), app.test_client()
    for browser in (first, second):
        give_password(browser, EMAIL)
    code = phone.code()
    assert give_code(first, code).status_code == 302
    assert "used already" in give_code(second, code).get_data(as_text=True)
    assert "used already" in give_code(second, phone.code(-1)).get_data(as_text=True)
    assert not is_signed_in(second)


@pytest.mark.parametrize("path", ["/sign-in/code", "/sign-in/recovery-code"])
def test_a_code_is_not_accepted_twice_at_the_same_moment(app: Flask, admin: FlaskClient, path: str) -> None:
    phone, codes = set_up(admin)
    code = phone.code() if path == "/sign-in/code" else codes[0]
    answers: list[int] = []

    def enter(browser: FlaskClient, token: str) -> None:
        answers.append(browser.post(path, data={"csrf_token": token, "code": code}).status_code)

    threads = []
    for _ in range(4):
        give_password(browser := app.test_client(), EMAIL)
        token = csrf_token(browser.get(path).get_data(as_text=True))
        threads.append(threading.Thread(target=enter, args=(browser, token)))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(answers) == [200, 200, 200, 302]


def test_the_code_that_set_it_up_does_not_sign_in(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin, step=0)
    thief = app.test_client()
    give_password(thief, EMAIL)
    assert give_code(thief, phone.code()).status_code == 200


def test_an_old_code_is_worth_nothing(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    with app.app_context():
        db.session.execute(update(Account).values(totp_counter=None))
        db.session.commit()
    give_password(browser := app.test_client(), EMAIL)
    for step in (-4, -3, 3):
        assert give_code(browser, phone.code(step)).status_code == 200


def test_a_code_alone_signs_nobody_in(app: Flask, admin: FlaskClient) -> None:
    set_up(admin)
    browser = app.test_client()
    for path in ("/sign-in/code", "/sign-in/recovery-code"):
        assert browser.get(path).location.startswith("/sign-in")


def test_the_password_is_asked_for_again_after_a_while(app: Flask, admin: FlaskClient) -> None:
    phone, codes = set_up(admin)
    browser = app.test_client()
    for path, code in (("/sign-in/code", phone.code()), ("/sign-in/recovery-code", codes[0])):
        give_password(browser, EMAIL)
        token = csrf_token(browser.get(path).get_data(as_text=True))
        with browser.session_transaction() as session:
            session["first_factor_at"] -= 601
        assert browser.post(path, data={"csrf_token": token, "code": code}).location.startswith("/sign-in")
        assert not is_signed_in(browser)


def test_a_secret_of_somebody_else_cannot_be_planted(sign_in: SignIn) -> None:
    thief, victim = sign_in("thief@x.example"), sign_in("victim@x.example")
    thief.get(SET_UP)
    victim.get(SET_UP)
    with thief.session_transaction() as session:
        planted = session["proposed_totp_secret"]
    with victim.session_transaction() as session:
        session["proposed_totp_secret"] = planted
    victim.get(SET_UP)
    with victim.session_transaction() as session:
        assert session["proposed_totp_secret"] != planted


def test_a_database_dump_gives_no_second_factor_away(app: Flask, admin: FlaskClient) -> None:
    phone, codes = set_up(admin)
    with app.app_context():
        dump = db.session.scalar(text("SELECT string_agg(accounts::text, '') FROM accounts"))
        assert dump
        for secret in (phone.totp.base32_key, *codes, *(code.replace("-", "") for code in codes)):
            assert secret not in dump
            assert secret.encode().hex() not in dump
        registration.add("thief@x.example", PASSWORD)
        stolen = "UPDATE accounts SET totp_secret_encrypted = (SELECT totp_secret_encrypted FROM accounts WHERE id = 1)"
        db.session.execute(text(stolen))
        db.session.commit()
        thief = db.session.scalars(select(Account).where(Account.email == "thief@x.example")).one()
        with pytest.raises(Exception, match="another place"):
            _ = thief.tf_totp_secret


@pytest.mark.parametrize(
    "bad", ["short", "password1234", "qwertyuiop", "admin@acme.example", "aaaaaaaaaaaaaaaa", "letmein2026"]
)
def test_a_password_that_is_guessed_early_is_refused(app: Flask, admin: FlaskClient, bad: str) -> None:
    answer = post(admin, "/account/password", password=PASSWORD, new_password=bad, new_password_confirm=bad)
    assert answer.status_code == 200
    assert "at least 10" in answer.get_data(as_text=True) or "guessed early" in answer.get_data(as_text=True)
    with app.app_context():
        assert not isinstance(registration.add("new@acme.example", bad.replace("admin", "new")), Account)


def test_a_very_long_password_is_taken(app: Flask, admin: FlaskClient) -> None:
    new = "correct horse battery staple " * 30
    answer = post(admin, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
    assert answer.status_code == 302
    give_password(browser := app.test_client(), EMAIL, new)
    assert is_signed_in(browser)


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        " //evil.example",
    ],
)
def test_signing_in_leads_nowhere_else(app: Flask, account: str, to: str) -> None:
    browser = app.test_client()
    answer = give_password(browser, EMAIL, next=to)
    location = answer.headers.get("Location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


@pytest.mark.parametrize("where", ["header", "query", "json"])
def test_no_token_signs_in(app: Flask, account: str, acme: str, where: str) -> None:
    with app.test_request_context():
        token = db.session.scalars(select(Account)).one().get_auth_token()
    browser, page = app.test_client(), f"/tenants/{acme}/deliveries"
    for path in ("/account", page, "/account/password", "/account/confirm"):
        if where == "header":
            answer = browser.get(path, headers={"Authentication-Token": token})
        elif where == "query":
            answer = browser.get(path, query_string={"auth_token": token})
        else:
            answer = browser.get(path, json={"auth_token": token})
        assert answer.status_code == 302, path
        assert "/sign-in" in answer.location


def test_no_password_in_a_header_signs_in(app: Flask, account: str) -> None:
    for path in ("/account", "/account/password"):
        assert app.test_client().get(path, auth=(EMAIL, PASSWORD)).status_code == 302


def test_nothing_is_answered_in_json_and_no_form_is_read_from_it(client: FlaskClient, account: str) -> None:
    page = client.get("/sign-in", headers={"Accept": "application/json"})
    assert page.mimetype == "text/html"
    headers = {"X-CSRFToken": csrf_token(page.get_data(as_text=True)), "Accept": "application/json"}
    answer = client.post("/sign-in", json={"email": EMAIL, "password": PASSWORD}, headers=headers)
    assert answer.status_code == 415
    assert "token" not in (answer.get_json(silent=True) or {})


def test_what_the_library_brings_along_is_closed(app: Flask, admin: FlaskClient, client: FlaskClient) -> None:
    closed = {"/tf-setup", "/tf-select", "/tf-rescue", "/mf-recovery-codes"}
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("security.")}
    ours = {"/sign-in", "/sign-out", "/forgotten-password", "/account/password", "/account/confirm"}
    assert {rule for rule in rules if "<" not in rule} == closed | ours | {"/sign-in/code", "/sign-in/recovery-code"}
    for path in closed:
        assert admin.get(path).status_code == 404
        assert "/sign-in" in client.get(path).location
