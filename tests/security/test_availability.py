"""Attacks on availability: one stranger or one tenant must not block everyone else."""

import gc
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event, Semaphore, Thread

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.accounts import rate_limits
from portal.accounts import service as account_service
from portal.accounts.known_browsers import MAX_ACCOUNTS
from portal.accounts.models import Account
from portal.accounts.rate_limits import ACCOUNT
from portal.accounts.request_guards import FORGOT_PASSWORD, SIGN_IN
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_templates import preview
from portal.mail_templates.compiler import CompiledTemplate, CompiledText, default_template, render_message
from portal.mail_templates.lint import template_warnings
from portal.mail_templates.models import MAX_BODY_LENGTH, MAX_MARKDOWN_LENGTH
from portal.mail_templates.placeholders import MailContext
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import TemplateFormat, TemplateSource, compile_source
from portal.pbx import api_keys, rate_limit
from portal.tenants import service as tenant_service
from tests.authenticator import give_code, give_password, set_up
from tests.conftest import SignIn, make_account
from tests.pages import HTMX, PASSWORD, WRONG_PASSWORD, csrf_token, forge, guesses, post
from tests.processes import wait_for
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST

pytestmark = pytest.mark.slow

EMAIL = "admin@acme.example"
FORGOTTEN = "/forgotten-password"


@pytest.fixture
def account(app: Flask) -> str:
    make_account(app, EMAIL)
    return EMAIL


def attempt(browser: FlaskClient, email: str, ip_address: str, path: str = "/sign-in") -> TestResponse:
    """Submit a wrong password, or a request for a new one, from an IP address."""
    token = csrf_token(browser.get(path).get_data(as_text=True))
    data = {"csrf_token": token, "email": email, "password": WRONG_PASSWORD}
    return browser.post(path, data=data, environ_overrides={"REMOTE_ADDR": ip_address})


def attempts(browser: FlaskClient, *made: tuple[str, str], path: str = "/sign-in") -> list[int]:
    """Submit a wrong password for each of these accounts, each time from an IP address. Return the statuses."""
    return [response.status_code for response in guesses(browser, *made, path=path)]


def guess_from_everywhere(app: Flask, email: str = EMAIL) -> None:
    """Reach the limit on the account itself."""
    with app.app_context():
        for number in range(150):
            rate_limits.count(SIGN_IN, account=email, ip_address=f"198.51.100.{number}")
        assert rate_limits.count(SIGN_IN, account=email, ip_address="192.0.2.200")


def test_attempts_from_one_place_do_not_lock_the_owner_out(app: Flask, account: str) -> None:
    answers = attempts(app.test_client(), *[(EMAIL, "203.0.113.9")] * 101)
    assert answers == [200] * 10 + [429] * 91
    assert give_password(app.test_client(), EMAIL).status_code == 302


def test_attempts_through_one_network_do_not_lock_the_owner_out(app: Flask, account: str) -> None:
    with app.app_context():
        for number in range(300):
            rate_limits.count(SIGN_IN, account=EMAIL, ip_address=f"2001:db8::{number:x}")
    assert give_password(app.test_client(), EMAIL).status_code == 302


def test_forgotten_password_requests_from_one_place_do_not_stop_the_owners(app: Flask, account: str) -> None:
    answers = attempts(app.test_client(), *[(EMAIL, "203.0.113.9")] * 20, path=FORGOTTEN)
    assert answers == [200] * 3 + [429] * 17
    assert post(app.test_client(), FORGOTTEN, email=EMAIL).status_code == 200


def test_every_limit_on_a_place_is_smaller_than_the_one_on_the_account() -> None:
    for rule in (SIGN_IN, FORGOT_PASSWORD):
        (of_account,) = (limit for limit in rule.limits if limit.per == ACCOUNT)
        assert any(
            limit.requests * 3600 / limit.period + limit.requests < of_account.requests
            for limit in rule.limits
            if set(limit.per) == {"account", "ip_address"}
        ), rule.name


def test_attempts_from_everywhere_do_not_lock_out_a_known_browser(app: Flask, account: str) -> None:
    known, unknown = app.test_client(), app.test_client()
    assert give_password(known, EMAIL).status_code == 302
    post(known, "/account", "/sign-out")
    guess_from_everywhere(app)
    assert give_password(unknown, EMAIL).status_code == 429
    assert give_password(known, EMAIL.upper()).status_code == 302


def test_a_known_browser_can_guess_ten_times_too(app: Flask, account: str) -> None:
    known = app.test_client()
    give_password(known, EMAIL)
    post(known, "/account", "/sign-out")
    answers = attempts(known, *((EMAIL, f"192.0.2.{number}") for number in range(12)))
    assert answers == [200] * 10 + [429] * 2
    assert give_password(known, EMAIL).status_code == 429


def test_a_browser_is_known_only_for_accounts_that_signed_in_with_it(app: Flask, account: str) -> None:
    make_account(app, "thief@x.example")
    thief = app.test_client()
    give_password(thief, "thief@x.example")
    post(thief, "/account", "/sign-out")
    guess_from_everywhere(app)
    assert give_password(thief, EMAIL).status_code == 429


def test_a_password_without_the_code_makes_no_browser_known(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    thief, owner = app.test_client(), app.test_client()
    give_password(thief, EMAIL)
    assert thief.get_cookie("known-browser") is None
    give_password(owner, EMAIL)
    assert give_code(owner, phone.code()).status_code == 302
    assert owner.get_cookie("known-browser") is not None


def test_someone_who_knows_the_password_does_not_lock_out_a_known_browser(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    post(admin, "/account", "/sign-out")
    thief = app.test_client()
    give_password(thief, EMAIL)
    assert [give_code(thief, f"{number:06}").status_code for number in range(12)] == [200] * 10 + [429] * 2
    give_password(admin, EMAIL)
    assert give_code(admin, phone.code()).status_code == 302


def test_a_forged_cookie_makes_no_browser_known(app: Flask, account: str) -> None:
    guess_from_everywhere(app)
    for value in ("", "x", "e30.x.y", "{}", "a" * 4_000):
        browser = app.test_client()
        browser.set_cookie("known-browser", value)
        assert give_password(browser, EMAIL).status_code == 429, value


def test_the_cookie_of_a_known_browser_is_signed_and_bounded(app: Flask, account: str) -> None:
    browser = app.test_client()
    for number in range(MAX_ACCOUNTS + 2):
        make_account(app, f"p{number}@x.example")
        answer = give_password(browser, f"p{number}@x.example")
        post(browser, "/account", "/sign-out")
    (header,) = (each for each in answer.headers.getlist("Set-Cookie") if each.startswith("known-browser="))
    assert len(header) < 1_000
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    assert "x.example" not in header
    cookie = browser.get_cookie("known-browser")
    assert cookie
    guess_from_everywhere(app, "p6@x.example")
    browser.set_cookie("known-browser", forge(cookie.value))
    assert give_password(browser, "p6@x.example").status_code == 429


def test_a_command_clears_the_limits(app: Flask, account: str) -> None:
    here = app.test_client()
    attempts(here, *[(EMAIL, "127.0.0.1")] * 11)
    guess_from_everywhere(app)
    with app.app_context():
        rate_limits.count(SIGN_IN, account="other@acme.example", ip_address="192.0.2.7")
    assert give_password(app.test_client(), EMAIL).status_code == 429
    result = app.test_cli_runner().invoke(args=["accounts", "unlock", EMAIL.upper()])
    assert result.output == f"{EMAIL} can sign in again.\n"
    assert give_password(app.test_client(), EMAIL).status_code == 302
    assert app.test_cli_runner().invoke(args=["accounts", "unlock", "nobody@acme.example"]).exit_code == 1


ODD_NAMES = [
    f"{EMAIL} from 203.0.113.9",
    f"{EMAIL}', '203.0.113.9",
    f'{EMAIL}", "203.0.113.9',
    f"{EMAIL}\0203.0.113.9",
    f"{EMAIL}\x1f203.0.113.9",
    f'["{EMAIL}","203.0.113.9"]',
]


def test_no_name_shares_its_count_with_an_account_at_a_place(app: Flask, account: str) -> None:
    for email in ODD_NAMES:
        with app.app_context():
            sql("DELETE FROM rate_limits")
        attempts(app.test_client(), *[(email, "192.0.2.1")] * 12)
        assert attempt(app.test_client(), EMAIL, "203.0.113.9").status_code == 200, email


@pytest.mark.parametrize("path", ["/sign-in", FORGOTTEN])
@pytest.mark.parametrize("make", [lambda n: "a" * n, lambda n: "a@" + "b." * (n // 2), lambda n: "é@é.example" * n])
def test_a_huge_email_address_costs_nothing(
    app: Flask, monkeypatch: pytest.MonkeyPatch, path: str, make: Callable[[int], str]
) -> None:
    seen: list[int] = []
    mail_util = app.extensions["security"].mail_util
    original = mail_util.normalize

    def normalize(email: str) -> str:
        seen.append(len(email))
        return str(original(email))

    monkeypatch.setattr(mail_util, "normalize", normalize)
    browser = app.test_client()
    answer = attempt(browser, make(480_000)[:480_000], "192.0.2.1", path)
    assert answer.status_code == 400
    assert max(seen, default=0) <= 254
    assert attempt(browser, "a" * 240 + "@x.example", "192.0.2.1", path).status_code == 200


def test_a_huge_email_address_is_bounded_in_every_form(context: Flask) -> None:
    began = time.process_time()
    for email in ("a" * 480_000, "a@" + "b." * 240_000, "é@" + "é" * 480_000):
        assert not isinstance(account_service.add(email, PASSWORD), Account)
    assert time.process_time() - began < 5  # seconds; one that looks at all of it for each character takes minutes
    db.session.rollback()


HOSTILE_HTML = {
    "dl dt": "<dl><dt>" * 12_000,
    "div": "<div>" * 101,
    "unmatched ends": "<dl></b></p></x>" * 1_200,
    "paragraphs": "<p>a" * 25_000,
    "empty ends": "</p>" * 20_000,
    "line breaks": "<br>" * 20_000,
    "cells": "<table>" + "<tr><td>a" * 11_000,
    "upper case": "<DL><DT>" * 12_000,
    "rules": "<style>" + "a{b:c}" * 16_000 + "</style>",
    "declarations": "<style>a{" + "b:c;" * 23_000 + "}</style>",
    "style attributes": ('<p style="' + "a:b;" * 500 + '">') * 48,
    "several style sheets": ("<style>" + "a{b:c;}" * 900 + "</style>") * 14,
}
HOSTILE_MARKDOWN = {
    "list": "- a\n" * 4_990,
    "list with other line ends": "- a\r" * 4_990,
    "numbered list": "1. a\n" * 3_990,
    "paragraphs": "a\n\n" * 6_600,
    "quotes": "> a\n\n" * 3_990,
    "headings": "# a\n" * 4_990,
    "facts": "- **a:** b\n" * 1_800,
    "bold": "**a** " * 3_300,
    "brackets": "[" * 19_990,
    "links": "[a](http://b) " * 1_400,
    "line breaks": "a\\\n" * 6_600,
}
EVENT_TYPE = EVENT_TYPES["queue.call_lost"]
CELL = '<td style="padding:8px 12px;color:#333;font-family:Arial,sans-serif">%%CALLER_NUMBER%%<br>text</td>'
LETTER = "A **bold** word and a [link](https://acme.example/a_b) in a line.\n\n- **Caller:** %%CALLER_NUMBER%%\n\n"
LARGE = {
    "newsletter": (TemplateFormat.HTML, "<table>" + f"<tr>{CELL * 3}</tr>" * 280 + "</table>"),
    "nested tables": (TemplateFormat.HTML, "<table><tr><td>" * 40 + "%%QUEUE_NAME%%" + "</td></tr></table>" * 40),
    "list without ends": (TemplateFormat.HTML, "<ul>" + "<li>one" * 500 + "</ul>"),
    "long letter": (TemplateFormat.MARKDOWN, LETTER * 180),
}


def source_of(template_format: TemplateFormat, body: str) -> TemplateSource:
    return TemplateSource(template_format, "Lost call", body)


@pytest.mark.parametrize("name", HOSTILE_HTML)
def test_hostile_html_is_rejected_before_it_is_parsed(
    context: Flask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    parsed: list[str] = []
    for function in ("sanitize", "sanitize_stylesheet"):
        monkeypatch.setattr(f"portal.mail_templates.custom_html.sanitizer.{function}", parsed.append)
    with pytest.raises(MisplacedPlaceholder, match="too complex"):
        compile_source(EVENT_TYPE, source_of(TemplateFormat.HTML, HOSTILE_HTML[name]))
    assert not parsed


@pytest.mark.parametrize("name", HOSTILE_MARKDOWN)
def test_hostile_markdown_is_rejected_before_it_is_parsed(
    context: Flask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    parsed: list[str] = []
    monkeypatch.setattr("portal.mail_templates.markdown.parse", parsed.append)
    with pytest.raises(MisplacedPlaceholder, match="too complex"):
        compile_source(EVENT_TYPE, source_of(TemplateFormat.MARKDOWN, HOSTILE_MARKDOWN[name]))
    assert not parsed


@pytest.mark.parametrize("name", LARGE)
def test_a_large_template_is_accepted(context: Flask, name: str) -> None:
    template_format, body = LARGE[name]
    assert len(body) <= (MAX_BODY_LENGTH if template_format is TemplateFormat.HTML else MAX_MARKDOWN_LENGTH)
    assert compile_source(EVENT_TYPE, source_of(template_format, body)).html


def test_many_unknown_placeholders_cost_little(context: Flask) -> None:
    body = " ".join(f"%%CALER_{number:05}%%" for number in range(1_200))
    assert 0 < len(template_warnings(EVENT_TYPE, source_of(TemplateFormat.MARKDOWN, body))) <= 20


@pytest.mark.parametrize("name", LARGE)
def test_what_was_previewed_is_not_kept_in_memory(context: Flask, name: str) -> None:
    """A preview is made while its author types: each has another text."""
    template_format, body = LARGE[name]

    def kept() -> int:
        gc.collect()
        return sum(isinstance(thing, CompiledTemplate | CompiledText) for thing in gc.get_objects())

    now, before = datetime.now(UTC), kept()
    acme = MailContext("Acme", "acme.example", "UTC")
    for number in range(5):
        template = compile_source(EVENT_TYPE, source_of(template_format, f"{number} {body}"))
        render_message(EVENT_TYPE, EVENT_TYPE.sample_data(now), now, acme, template=template)
    del template
    assert kept() == before


def preview_of(browser: FlaskClient, token: str, body: str) -> TestResponse:
    """Request the preview of a template in HTML."""
    data = {"csrf_token": token, "subject": "Lost call", "format": "html", "body": body}
    return browser.post("/tenants/acme.example/templates/queue.call_lost/preview", data=data, headers=HTMX)


def in_threads(
    function: Callable[[str], TestResponse], bodies: Sequence[str]
) -> tuple[list[Thread], list[TestResponse]]:
    """Call the function with each body at once. Return the threads, and their answers, which arrive later."""
    answers: list[TestResponse] = []
    threads = [Thread(target=lambda body=body: answers.append(function(body))) for body in bodies]
    for thread in threads:
        thread.start()
    return threads, answers


def test_previews_of_an_account_wait_for_each_other_without_a_transaction(
    app: Flask, admin: FlaskClient, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview.PREVIEWS, "max_wait", 0.5)
    token, cookie = csrf_token(admin.get("/account/password").text), admin.get_cookie("session")
    assert cookie
    other = sign_in("other@globex.example")
    compiling, end = Semaphore(0), Event()

    def never_ends(*_: object) -> CompiledTemplate:
        compiling.release()
        end.wait(60)
        return default_template(EVENT_TYPE, "en")

    def of_a_browser(body: str) -> TestResponse:
        browser = app.test_client()
        browser.set_cookie("session", cookie.value)
        return preview_of(browser, token, body)

    monkeypatch.setattr("portal.mail_templates.source.compile_source", never_ends)
    threads, answers = in_threads(of_a_browser, ["<p>a"] * 8)
    try:
        assert compiling.acquire(timeout=60)
        wait_for(lambda: len(answers) >= 7)
        assert [answer.status_code for answer in answers] == [429] * 7
        assert all("Retry-After" in answer.headers for answer in answers)
        assert not compiling.acquire(blocking=False), "one at a time"
        assert other.get("/account").status_code == 200
        with app.app_context():
            query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in %'"
            assert sql(query) == []
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7


def test_eight_hostile_previews_at_once_leave_another_request_answered(
    app: Flask, admin: FlaskClient, sign_in: SignIn
) -> None:
    other, token = sign_in("other@globex.example"), csrf_token(admin.get("/account/password").text)
    cookie = admin.get_cookie("session")
    assert cookie

    def of_a_browser(body: str) -> TestResponse:
        browser = app.test_client()
        browser.set_cookie("session", cookie.value)
        return preview_of(browser, token, body)

    threads, answers = in_threads(of_a_browser, list(HOSTILE_HTML.values())[:8])
    began = time.monotonic()
    assert other.get("/account").status_code == 200
    assert time.monotonic() - began < 5
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert all("too complex" in answer.text for answer in answers)


def issue_keys(app: Flask, count: int, domain: str | None = None) -> list[str]:
    with app.app_context():
        tenant = tenant_service.find(domain) if domain else None
        return [api_keys.issue(tenant).secret for _ in range(count)]


def test_a_tenant_has_a_bounded_number_of_keys(app: Flask, admin: FlaskClient, acme: str, globex: str) -> None:
    issue_keys(app, api_keys.MAX_VALID_KEYS, acme)
    for page in ("keys", "connect"):
        answer = post(admin, f"/tenants/{acme}/{page}", name="one more")
        assert answer.status_code == 422
        assert "25 valid keys already" in answer.text
    run = app.test_cli_runner().invoke
    result = run(args=["keys", "issue", "--tenant", acme])
    assert (result.exit_code, "25 valid keys already" in result.output) == (1, True)
    assert run(args=["keys", "issue", "--tenant", globex]).exit_code == 0
    assert run(args=["keys", "issue", "--system"]).exit_code == 0
    with app.app_context():
        sql("UPDATE api_keys SET revoked_at = now() WHERE id = 1")
        sql("UPDATE api_keys SET expires_at = now() WHERE id = 2")
    for _ in range(2):
        assert run(args=["keys", "issue", "--tenant", acme]).exit_code == 0
    assert run(args=["keys", "issue", "--tenant", acme]).exit_code == 1


def test_keys_can_be_replaced_at_the_limit_and_not_multiplied(app: Flask, acme: str) -> None:
    issue_keys(app, api_keys.MAX_VALID_KEYS, acme)
    run = app.test_cli_runner().invoke
    codes = [run(args=["keys", "rotate", str(number)]).exit_code for number in range(1, api_keys.MAX_VALID_KEYS + 1)]
    assert set(codes) == {0}
    assert run(args=["keys", "rotate", "1"]).exit_code == 1


@pytest.fixture
def three_per_minute(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = app.extensions["settings"].model_copy(update={"event_rate_limit": "3 per 61 seconds"})
    monkeypatch.setitem(app.extensions, "settings", settings)
    rate_limit.rate_limit.cache_clear()


def report(app: Flask, key: str, tenant: str) -> int:
    event = {"type": "queue.call_lost", "tenant": tenant, "data": CALL_LOST}
    return app.test_client().post("/api/v1/events", json=event, headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.usefixtures("three_per_minute")
def test_further_keys_do_not_raise_a_tenants_rate_limit(app: Flask, acme: str, globex: str) -> None:
    first, second = issue_keys(app, 2, acme)
    (other,) = issue_keys(app, 1, globex)
    assert [report(app, key, acme) for key in (first, second, first, second, first)] == [200] * 3 + [429] * 2
    assert report(app, other, globex) == 200


@pytest.mark.usefixtures("three_per_minute")
def test_system_keys_count_for_the_tenant_and_in_total(app: Flask, acme: str, globex: str) -> None:
    first, second = issue_keys(app, 2)
    assert [report(app, key, acme) for key in (first, second)] == [200, 200]
    assert [report(app, key, globex) for key in (first, second)] == [200, 429]
    (own,) = issue_keys(app, 1, globex)
    assert report(app, own, globex) == 200
