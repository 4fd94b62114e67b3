"""Attacks on sessions: stolen and planted cookies, and sessions that should have ended."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import encode_cookie
from sqlalchemy import func, select, text, update

from portal import create_app
from portal.accounts import service as account_service
from portal.accounts import sessions
from portal.accounts.models import Account, AccountSession
from portal.config import Settings
from portal.extensions import db
from tests.authenticator import give_code, give_password, is_signed_in, set_up
from tests.conftest import SignIn, close_connections
from tests.mail_servers.test_account_email import link_in, received, request_reset, use_server
from tests.pages import HTMX, PASSWORD, csrf_token, post
from tests.smtp_peer import SmtpPeer
from tests.sql_log import Statements, statements

__all__ = ["statements"]

EMAIL = "admin@acme.example"
NEW = "an even longer password"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def copy_of(browser: FlaskClient, app: Flask) -> FlaskClient:
    """Return another browser with the same cookie, like a thief's."""
    thief = app.test_client()
    cookie = browser.get_cookie("session")
    assert cookie is not None
    thief.set_cookie("session", cookie.value)
    return thief


def age(app: Flask, **by: timedelta) -> None:
    """Move times of all sessions into the past."""
    with app.app_context():
        db.session.execute(
            update(AccountSession).values({name: getattr(AccountSession, name) - delta for name, delta in by.items()})
        )
        db.session.commit()


def count(app: Flask) -> int:
    with app.app_context():
        return db.session.scalars(select(func.count(AccountSession.id))).one()


def test_signing_out_ends_the_session_of_a_copied_cookie(app: Flask, admin: FlaskClient) -> None:
    thief = copy_of(admin, app)
    assert is_signed_in(thief)
    post(admin, "/account", "/sign-out")
    assert not is_signed_in(thief)
    assert count(app) == 0


def test_a_password_change_ends_the_session_of_a_copied_cookie(app: Flask, admin: FlaskClient) -> None:
    thief = copy_of(admin, app)
    answer = post(admin, "/account/password", password=PASSWORD, new_password=NEW, new_password_confirm=NEW)
    assert answer.location == "/account"
    assert is_signed_in(admin)
    assert not is_signed_in(thief)
    assert count(app) == 1


def test_a_password_reset_ends_all_sessions(app: Flask, sign_in: SignIn, acme: str) -> None:
    browsers = [sign_in(EMAIL, administers=acme) for _ in range(2)]
    visitor = app.test_client()
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        request_reset(visitor)
        link = link_in(received(peer), "plain")
    assert post(visitor, link, password=NEW, password_confirm=NEW).status_code == 302
    assert not any(is_signed_in(each) for each in [*browsers, visitor])
    assert count(app) == 0
    assert visitor.get(link).status_code == 302, "the link works once"


def test_a_password_change_by_command_ends_all_sessions(
    app: Flask, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAL_PASSWORD", NEW)
    run = app.test_cli_runner().invoke(args=["accounts", "change-password", EMAIL])
    assert run.exit_code == 0, run.output
    assert not is_signed_in(admin)
    assert count(app) == 0
    assert give_password(admin, EMAIL, NEW).status_code == 302


def test_a_cookie_planted_before_signing_in_is_not_signed_in(app: Flask) -> None:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    victim = app.test_client()
    page = victim.get("/sign-in").get_data(as_text=True)
    thief = copy_of(victim, app)
    give_password(victim, EMAIL)
    assert is_signed_in(victim)
    assert not is_signed_in(thief)
    known = thief.get("/sign-in").get_data(as_text=True)
    for token in (csrf_token(page), csrf_token(known)):
        assert victim.post("/account/sessions/end-others", data={"csrf_token": token}).status_code == 400


def test_signing_in_discards_the_cookies_contents(app: Flask) -> None:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    browser = app.test_client()
    browser.get("/sign-in")
    with browser.session_transaction() as session:
        session["planted"] = session["workspace"] = 7
    give_password(browser, EMAIL)
    with browser.session_transaction() as session:
        assert not {"planted", "workspace"} & set(session)


def test_a_token_of_another_account_is_rejected(sign_in: SignIn) -> None:
    thief, victim = sign_in("thief@x.example"), sign_in("victim@x.example")
    with thief.session_transaction() as session:
        token = session["account_session"]
    with victim.session_transaction() as session:
        session["account_session"] = token
    assert not is_signed_in(victim)


def test_the_database_does_not_contain_the_token(app: Flask, admin: FlaskClient) -> None:
    with admin.session_transaction() as session:
        token = session["account_session"]
    with app.app_context():
        dump = db.session.scalar(text("SELECT string_agg(account_sessions::text, '') FROM account_sessions"))
    assert dump
    assert token not in dump
    assert token.encode().hex() not in dump


def test_a_disabled_account_is_signed_out_immediately(app: Flask, admin: FlaskClient) -> None:
    with app.app_context():
        db.session.execute(update(Account).values(active=False))
        db.session.commit()
    assert not is_signed_in(admin)


def test_unused_sessions_end(app: Flask, admin: FlaskClient) -> None:
    age(app, expires_at=timedelta(hours=7, minutes=59))
    assert is_signed_in(admin)
    age(app, expires_at=timedelta(minutes=2))
    assert not is_signed_in(admin)


@pytest.mark.parametrize("path", [f"deliveries/updates?newest={'0' * 32}", "connect/status?seen=x"])
def test_polling_does_not_keep_a_session_alive(app: Flask, admin: FlaskClient, path: str) -> None:
    age(app, expires_at=timedelta(hours=7), last_seen_at=timedelta(hours=1))
    with app.app_context():
        before = db.session.scalars(select(AccountSession.expires_at)).one()
    assert admin.get(f"/tenants/acme.example/{path}").status_code in (200, 204)
    with app.app_context():
        assert db.session.scalars(select(AccountSession.expires_at)).one() == before


def test_sessions_end_even_if_they_are_used(app: Flask, admin: FlaskClient) -> None:
    for hours in range(0, 24, 6):
        age(app, **dict.fromkeys(("created_at", "last_seen_at", "expires_at"), timedelta(hours=6)))
        assert is_signed_in(admin) == (hours < 18), hours


def test_remembered_sessions_have_no_cookie_of_their_own_and_end_too(app: Flask) -> None:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    browser = app.test_client()
    answer = give_password(browser, EMAIL, remember="y")
    assert [each.partition("=")[0] for each in answer.headers.getlist("Set-Cookie")] == [
        "known-browser",
        "session",
    ]
    assert "Expires=" in answer.headers["Set-Cookie"]
    age(app, **dict.fromkeys(("created_at", "last_seen_at", "expires_at"), timedelta(days=13)))
    assert is_signed_in(browser)
    post(browser, "/account/password", password=PASSWORD, new_password=NEW, new_password_confirm=NEW)
    with app.app_context():
        assert db.session.scalars(select(AccountSession)).one().remembered
    age(app, **dict.fromkeys(("created_at", "last_seen_at", "expires_at"), timedelta(days=15)))
    assert not is_signed_in(browser)


def test_a_remember_cookie_does_not_sign_in(app: Flask, admin: FlaskClient) -> None:
    with app.app_context():
        account = db.session.scalars(select(Account)).one()
        cookie = encode_cookie(account.fs_uniquifier)
    thief = app.test_client()
    thief.set_cookie("remember_token", cookie)
    assert not is_signed_in(thief)


def test_an_account_sees_its_sessions_and_can_end_them(app: Flask, sign_in: SignIn, acme: str) -> None:
    here, one, two = (sign_in(EMAIL, administers=acme) for _ in range(3))
    stranger = sign_in("other@x.example")
    with app.app_context():
        db.session.execute(update(AccountSession).values(ip_address="192.0.2." + "7", browser="Firefox (Linux)"))
        db.session.commit()
    page = here.get("/account").get_data(as_text=True)
    assert page.count("192.0.2.7 ·") == 3
    assert page.count("This browser") == 1
    ends = re.findall(r'action="(/account/sessions/\d+/end)"', page)
    assert len(ends) == 2
    post(stranger, "/account", ends[1])
    assert is_signed_in(one), "another account cannot end it"
    answer = post(here, "/account", ends[1], htmx=True)
    assert answer.get_data(as_text=True).lstrip().startswith('<div id="sessions">')
    assert [is_signed_in(each) for each in (here, one, two)].count(True) == 2
    assert is_signed_in(here)
    assert post(here, "/account", "/account/sessions/end-others").location == "/account"
    assert [is_signed_in(each) for each in (here, one, two)] == [True, False, False]
    assert is_signed_in(stranger)
    post(here, "/account", f"/account/sessions/{2**70}/end")


def test_use_is_recorded_at_most_once_a_minute(app: Flask, admin: FlaskClient, statements: Statements) -> None:
    statements.clear()
    is_signed_in(admin)
    assert not any("UPDATE account_sessions" in each for each in statements)
    age(app, last_seen_at=timedelta(minutes=2))
    is_signed_in(admin)
    with app.app_context():
        seen = db.session.scalars(select(AccountSession.last_seen_at)).one()
    assert datetime.now(UTC) - seen < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (FIREFOX, "Firefox (Linux)"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/141.0 Safari/537.36 Edg/141.0", "Edge (Windows)"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/141.0 Mobile Safari/537.36", "Chrome (Android)"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari (iPhone)"),
        ("curl/8", "Browser"),
        ("", "Browser"),
        ("<script>" * 9000, "Browser"),
    ],
)
def test_browsers_have_names(user_agent: str, name: str) -> None:
    assert sessions.browser_name(user_agent) == name


def test_expired_sessions_are_deleted(app: Flask, admin: FlaskClient) -> None:
    age(app, expires_at=timedelta(days=1))
    with app.app_context():
        sessions.delete_expired()
    assert count(app) == 0


def test_pages_are_not_cached(app: Flask, admin: FlaskClient, acme: str) -> None:
    for path in ("/account", "/account/password", f"/tenants/{acme}/deliveries", "/", "/sign-in"):
        assert "no-store" in admin.get(path).headers["Cache-Control"], path
    assert "no-store" in admin.get(f"/tenants/{acme}/deliveries", headers=HTMX).headers["Cache-Control"]
    with admin.get("/static/app.css") as style:
        assert "no-store" not in style.headers["Cache-Control"]


def test_the_cookie_is_unavailable_to_scripts_other_sites_and_other_hosts(app: Flask, settings: Settings) -> None:
    safe = create_app(settings.model_copy(update={"portal_url": "https://portal.test"}))
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    page = safe.test_client().get("/sign-in", base_url="https://portal.test")
    close_connections(safe)
    (cookie,) = page.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_opening_the_code_page_does_not_sign_out(app: Flask, admin: FlaskClient) -> None:
    assert admin.get("/sign-in/code").location == "/"
    assert is_signed_in(admin)


def test_the_session_starts_after_the_second_factor(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    browser = app.test_client()
    give_password(browser, EMAIL, remember="y")
    assert count(app) == 1
    give_code(browser, phone.code())
    assert count(app) == 2
    with app.app_context():
        assert sorted(db.session.scalars(select(AccountSession.remembered))) == [False, True]
