"""Attacks on signing in: guessing, enumerating accounts, replaying codes."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text, update
from werkzeug.test import TestResponse

from portal import create_app
from portal.accounts import rate_limits, request_guards
from portal.accounts import service as account_service
from portal.accounts.models import Account, RateLimit
from portal.accounts.rate_limits import ACCOUNT, HOUR, IP_ADDRESS
from portal.accounts.request_guards import SIGN_IN
from portal.config import Settings
from portal.database import fast_sql
from portal.extensions import db
from portal.mail_servers import account_email
from tests.authenticator import SET_UP, give_code, give_password, is_signed_in, set_up
from tests.conftest import SEND_DELAY, SignIn, close_connections, make_passwords_cheap
from tests.mail_servers.test_account_email import use_server
from tests.pages import PASSWORD, WRONG_PASSWORD, csrf_token, guesses, post
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer

EMAIL = "admin@acme.example"


def guess(browser: FlaskClient, email: str = EMAIL, ip_address: str = "192.0.2.1") -> TestResponse:
    """Submit a wrong password from an IP address."""
    return guesses(browser, (email, ip_address))[0]


def statuses(answers: list[TestResponse]) -> list[int]:
    return [each.status_code for each in answers]


@pytest.fixture
def account(app: Flask) -> str:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    return EMAIL


@pytest.fixture
def another_process(settings: Settings) -> Iterator[FlaskClient]:
    """A browser whose requests go to another process of the portal."""
    app = create_app(settings)
    yield app.test_client()
    close_connections(app)


def limit_to_four(monkeypatch: pytest.MonkeyPatch, per: tuple[str, ...]) -> None:
    """Lower the sign-in limit on an account, or on an IP address, so that a test can reach it."""
    limits = tuple(replace(limit, requests=4, period=HOUR) if limit.per == per else limit for limit in SIGN_IN.limits)
    monkeypatch.setitem(request_guards.RATE_LIMITS, "security.login", replace(SIGN_IN, limits=limits))


def test_guessing_is_stopped_whether_or_not_the_account_exists(app: Flask, account: str) -> None:
    answers = {}
    for email in (EMAIL, "nobody@acme.example"):
        browser = app.test_client()
        tries = guesses(browser, *[(email, "192.0.2.1")] * 12)
        assert statuses(tries) == [200] * 10 + [429] * 2
        assert 0 < int(tries[-1].headers["Retry-After"]) <= 90
        answers[email] = re.sub(r'"X-CSRFToken": "[^"]*"', "", tries[-1].get_data(as_text=True))
    assert "Too many requests" in answers[EMAIL]
    assert answers[EMAIL] == answers["nobody@acme.example"]
    browser = app.test_client()
    assert give_password(browser, EMAIL).status_code == 302, "its owner can sign in from elsewhere"


def test_after_too_many_guesses_the_right_password_is_rejected_too(app: Flask, account: str) -> None:
    browser = app.test_client()
    guesses(browser, *[(EMAIL, "127.0.0.1")] * 10)
    assert give_password(browser, EMAIL).status_code == 429


def test_all_processes_share_the_counts(app: Flask, account: str, another_process: FlaskClient) -> None:
    here = app.test_client()
    answers = [guess(each).status_code for _ in range(6) for each in (here, another_process)]
    assert answers == [200] * 10 + [429] * 2


def test_simultaneous_guesses_are_all_counted(app: Flask, account: str) -> None:
    waits: list[int | None] = []

    def count() -> None:
        with app.app_context():
            waits.append(rate_limits.count(SIGN_IN, account=EMAIL, ip_address="192.0.2.1"))

    threads = [threading.Thread(target=count) for _ in range(24)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert waits.count(None) == 10
    with app.app_context():
        fast_sql.dispose()


def test_guessing_from_many_ip_addresses_is_stopped(
    app: Flask, account: str, monkeypatch: pytest.MonkeyPatch, client: FlaskClient
) -> None:
    limit_to_four(monkeypatch, ACCOUNT)
    answers = guesses(client, *((EMAIL, f"198.51.100.{number}") for number in range(6)))
    assert statuses(answers) == [200] * 4 + [429] * 2


def test_guessing_at_many_accounts_is_stopped(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to_four(monkeypatch, IP_ADDRESS)
    answers = guesses(client, *((f"person{number}@acme.example", "192.0.2.1") for number in range(6)))
    assert statuses(answers) == [200] * 4 + [429] * 2
    assert guess(client, "person9@acme.example", "192.0.2.2").status_code == 200


def test_an_ipv6_network_is_one_ip_address(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to_four(monkeypatch, IP_ADDRESS)
    answers = guesses(client, *((f"p{n}@acme.example", f"2001:db8::{n:x}") for n in range(1, 7)))
    assert statuses(answers) == [200] * 4 + [429] * 2
    assert guess(client, "p9@acme.example", "2001:db8:0:1::1").status_code == 200


def test_another_spelling_of_the_account_shares_its_count(client: FlaskClient, account: str) -> None:
    guesses(client, *[(EMAIL, "192.0.2.1")] * 10)
    for spelling in ("ADMIN@acme.example", "admin@ACME.example", "admin@acme。example"):
        assert guess(client, spelling).status_code == 429, spelling


def test_letters_that_postgres_folds_to_latin_ones_find_no_account(client: FlaskClient, account: str) -> None:
    for spelling in ("admİn@acme.example", "adm\u0131n@acme.example", "\u212adm\u0131n@acme.example"):
        assert give_password(client, spelling).status_code == 200


def test_counts_decrease_and_are_deleted(context: Flask) -> None:
    for _ in range(11):
        wait = rate_limits.count(SIGN_IN, account=EMAIL, ip_address="192.0.2.1")
    assert wait
    db.session.execute(update(RateLimit).values(empty_at=RateLimit.empty_at - timedelta(seconds=wait)))
    db.session.commit()
    assert rate_limits.count(SIGN_IN, account=EMAIL, ip_address="192.0.2.1") is None
    for _ in range(100):
        last = rate_limits.count(SIGN_IN, account=EMAIL, ip_address="192.0.2.1")
    assert last
    assert last <= 90, "repeated requests do not extend the wait"
    rate_limits.count(SIGN_IN, account="other@acme.example", ip_address="192.0.2.2")
    db.session.execute(update(RateLimit).values(empty_at=datetime.now(UTC) - timedelta(seconds=1)))
    db.session.commit()
    rate_limits.delete_empty()
    assert db.session.scalars(select(RateLimit)).all() == []


def test_counts_do_not_contain_what_was_typed(context: Flask) -> None:
    rate_limits.count(SIGN_IN, account="my secret password, in the wrong field", ip_address="192.0.2.1")
    stored = db.session.scalar(text("SELECT string_agg(rate_limits::text, '') FROM rate_limits"))
    assert stored
    assert "secret" not in stored
    assert b"secret".hex() not in stored


@pytest.mark.slow
def test_password_resets_cannot_flood_a_mailbox(app: Flask, client: FlaskClient, account: str) -> None:
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        for email in (EMAIL, "nobody@acme.example"):
            made = [(email, f"198.51.100.{n}") for n in range(12)]
            answers = guesses(client, *made, path="/forgotten-password")
            assert statuses(answers) == [200] * 10 + [429] * 2
        wait_for(lambda: len(peer.messages) >= 10)
    assert len(peer.messages) == 10


def test_links_cannot_be_guessed_and_guessing_blocks_only_the_guesser(client: FlaskClient) -> None:
    token = csrf_token(client.get("/forgotten-password").get_data(as_text=True))

    def guess_link(number: int, ip_address: str) -> int:
        new = {"password": PASSWORD, "password_confirm": PASSWORD, "csrf_token": token}
        environ = {"REMOTE_ADDR": ip_address}
        return client.post(f"/forgotten-password/guess{number}", data=new, environ_overrides=environ).status_code

    assert [guess_link(number, "192.0.2.1") for number in range(31)] == [302] * 30 + [429]
    assert guess_link(31, "192.0.2.2") == 302


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


def test_the_password_cannot_be_guessed_in_a_signed_in_browser(admin: FlaskClient) -> None:
    answers = [post(admin, "/account/confirm", password=WRONG_PASSWORD).status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]
    assert post(admin, "/account/password", password=WRONG_PASSWORD).status_code == 429


def fastest(rounds: int, request: Callable[[str], object], *emails: str) -> list[float]:
    """Return the shortest processor time of a request for each email address, which other processes do not change."""
    times: dict[str, list[float]] = {email: [] for email in emails}
    for _ in range(rounds):
        for email in emails:
            before = time.process_time()
            request(email)
            times[email].append(time.process_time() - before)
    return [min(seconds) for seconds in times.values()]


@pytest.fixture
def no_rate_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "count", lambda *_, **__: None)


@pytest.fixture
def costly_passwords(app: Flask) -> Iterator[None]:
    """Hashing a password takes several times as long as the rest of a request, as in production."""
    context = app.extensions["security"].pwd_context
    context.update(argon2__memory_cost=32 * 1024)
    yield
    make_passwords_cheap(app)


def test_the_time_of_signing_in_does_not_reveal_accounts(
    client: FlaskClient, costly_passwords: None, account: str, no_rate_limits: None
) -> None:
    known, unknown = fastest(5, lambda email: guess(client, email), EMAIL, "nobody@acme.example")
    assert 0.6 < known / unknown < 1.6


@pytest.mark.slow
def test_the_time_of_a_password_reset_does_not_reveal_accounts(
    client: FlaskClient, account: str, no_rate_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_email, "SEND_DELAY", SEND_DELAY)
    known, unknown = fastest(
        20,
        lambda email: guesses(client, (email, "192.0.2.1"), path="/forgotten-password"),
        EMAIL,
        "nobody@acme.example",
    )
    assert abs(known - unknown) < 0.02


def test_a_disabled_account_cannot_sign_in(app: Flask, client: FlaskClient, account: str) -> None:
    with app.app_context():
        db.session.execute(update(Account).values(active=False))
        db.session.commit()
    answer = give_password(client, EMAIL)
    assert "is incorrect" in answer.get_data(as_text=True)
    assert not is_signed_in(client)


def test_a_code_is_accepted_once(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    first, second = app.test_client(), app.test_client()
    for browser in (first, second):
        give_password(browser, EMAIL)
    code = phone.code()
    assert give_code(first, code).status_code == 302
    assert "already used" in give_code(second, code).get_data(as_text=True)
    assert "already used" in give_code(second, phone.code(-1)).get_data(as_text=True)
    assert not is_signed_in(second)


@pytest.mark.parametrize("path", ["/sign-in/code", "/sign-in/recovery-code"])
def test_a_code_is_accepted_once_by_simultaneous_requests(app: Flask, admin: FlaskClient, path: str) -> None:
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


def test_the_code_of_the_set_up_does_not_sign_in(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin, step=0)
    thief = app.test_client()
    give_password(thief, EMAIL)
    assert give_code(thief, phone.code()).status_code == 200


def test_old_codes_are_rejected(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    with app.app_context():
        db.session.execute(update(Account).values(totp_counter=None))
        db.session.commit()
    give_password(browser := app.test_client(), EMAIL)
    for step in (-4, -3, 3):
        assert give_code(browser, phone.code(step)).status_code == 200


def test_a_code_without_a_password_does_not_sign_in(app: Flask, admin: FlaskClient) -> None:
    set_up(admin)
    browser = app.test_client()
    for path in ("/sign-in/code", "/sign-in/recovery-code"):
        assert browser.get(path).location.startswith("/sign-in")


def test_the_password_expires_before_the_code_is_entered(app: Flask, admin: FlaskClient) -> None:
    phone, codes = set_up(admin)
    browser = app.test_client()
    for path, code in (("/sign-in/code", phone.code()), ("/sign-in/recovery-code", codes[0])):
        give_password(browser, EMAIL)
        token = csrf_token(browser.get(path).get_data(as_text=True))
        with browser.session_transaction() as session:
            session["first_factor_at"] -= 601
        assert browser.post(path, data={"csrf_token": token, "code": code}).location.startswith("/sign-in")
        assert not is_signed_in(browser)


def test_another_accounts_secret_cannot_be_planted(sign_in: SignIn) -> None:
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


def test_a_database_dump_reveals_no_second_factor(app: Flask, admin: FlaskClient) -> None:
    phone, codes = set_up(admin)
    with app.app_context():
        dump = db.session.scalar(text("SELECT string_agg(accounts::text, '') FROM accounts"))
        assert dump
        for secret in (phone.totp.base32_key, *codes, *(code.replace("-", "") for code in codes)):
            assert secret not in dump
            assert secret.encode().hex() not in dump
        account_service.add("thief@x.example", PASSWORD)
        stolen = "UPDATE accounts SET totp_secret_encrypted = (SELECT totp_secret_encrypted FROM accounts WHERE id = 1)"
        db.session.execute(text(stolen))
        db.session.commit()
        thief = db.session.scalars(select(Account).where(Account.email == "thief@x.example")).one()
        with pytest.raises(Exception, match="another context"):
            _ = thief.tf_totp_secret


EASY = ("short", "password1234", "qwertyuiop", "admin@acme.example", "aaaaaaaaaaaaaaaa", "letmein2026")


def test_easy_passwords_are_rejected(app: Flask, admin: FlaskClient) -> None:
    token = csrf_token(admin.get("/account/password").text)
    for bad in EASY:
        new = {"csrf_token": token, "password": PASSWORD, "new_password": bad, "new_password_confirm": bad}
        answer = admin.post("/account/password", data=new)
        assert answer.status_code == 200, bad
        assert "at least 10" in answer.text or "easy to guess" in answer.text, bad
        with app.app_context():
            assert not isinstance(account_service.add("new@acme.example", bad.replace("admin", "new")), Account), bad


def test_very_long_passwords_are_accepted(app: Flask, admin: FlaskClient) -> None:
    new = "correct horse battery staple " * 30
    answer = post(admin, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
    assert answer.status_code == 302
    give_password(browser := app.test_client(), EMAIL, new)
    assert is_signed_in(browser)


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    " //evil.example",
)


def test_signing_in_does_not_redirect_to_other_sites(app: Flask, account: str) -> None:
    for to in ELSEWHERE:
        answer = give_password(app.test_client(), EMAIL, next=to)
        location = answer.headers.get("Location", "/")
        assert location.startswith("/"), to
        assert not location.startswith(("//", "/\\")), to


def test_authentication_tokens_do_not_sign_in(app: Flask, account: str, acme: str) -> None:
    with app.test_request_context():
        token = db.session.scalars(select(Account)).one().get_auth_token()
    page = f"/tenants/{acme}/deliveries"
    given: tuple[dict[str, Any], ...] = (
        {"headers": {"Authentication-Token": token}},
        {"query_string": {"auth_token": token}},
        {"json": {"auth_token": token}},
    )
    for where, path in product(given, ("/account", page, "/account/password", "/account/confirm")):
        answer = app.test_client().get(path, **where)
        assert answer.status_code == 302, (path, where)
        assert "/sign-in" in answer.location


def test_basic_authentication_does_not_sign_in(app: Flask, account: str) -> None:
    for path in ("/account", "/account/password"):
        assert app.test_client().get(path, auth=(EMAIL, PASSWORD)).status_code == 302


def test_json_is_neither_accepted_nor_returned(client: FlaskClient, account: str) -> None:
    page = client.get("/sign-in", headers={"Accept": "application/json"})
    assert page.mimetype == "text/html"
    headers = {"X-CSRFToken": csrf_token(page.get_data(as_text=True)), "Accept": "application/json"}
    answer = client.post("/sign-in", json={"email": EMAIL, "password": PASSWORD}, headers=headers)
    assert answer.status_code == 415
    assert "token" not in (answer.get_json(silent=True) or {})


def test_unused_pages_of_flask_security_are_closed(app: Flask, admin: FlaskClient, client: FlaskClient) -> None:
    closed = {"/tf-setup", "/tf-select", "/tf-rescue", "/mf-recovery-codes"}
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("security.")}
    ours = {"/sign-in", "/sign-out", "/forgotten-password", "/account/password", "/account/confirm"}
    assert {rule for rule in rules if "<" not in rule} == closed | ours | {"/sign-in/code", "/sign-in/recovery-code"}
    for path in closed:
        assert admin.get(path).status_code == 404
        assert "/sign-in" in client.get(path).location
