"""Changing an account's email address: both addresses confirm, and nobody learns whose address it is."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_security.recoverable import generate_reset_password_token

from portal.accounts import email_change
from portal.accounts import service as account_service
from portal.people import members
from tests.concurrency import blocked_until_done
from tests.conftest import SignIn, make_account, signed_in
from tests.mail_servers.test_account_email import use_server, wait_for
from tests.pages import PASSWORD, csrf_token, post
from tests.people.example_people import account_with, invite, role_of, texts, within
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

OLD, NEW = "admin@acme.example", "ann@new.example"
CHANGE = "/account/email"
LINK = re.compile(r"http://portal\.test(/account/email/confirm/[\w-]+)")


def request_change(app: Flask, browser: FlaskClient, new: str = NEW) -> tuple[str, str]:
    """Ask for a new address, and return the paths of the links that the old and the new one receive."""
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        answer = post(browser, CHANGE, email=new)
        assert answer.location == "/account", answer.text
        wait_for(lambda: all(LINK.search(texts(peer).get(address, "")) for address in (OLD, new)))
        found = [LINK.search(texts(peer)[address]) for address in (OLD, new)]
    assert found[0]
    assert found[1]
    return found[0][1], found[1][1]


def confirm(browser: FlaskClient, link: str) -> tuple[int, str]:
    page = browser.get(link)
    if page.status_code != 200:
        return page.status_code, page.text
    answer = browser.post(link, data={"csrf_token": csrf_token(page.text)})
    return answer.status_code, answer.location or answer.text


def exists(app: Flask, email: str) -> bool:
    return within(app, lambda: account_service.find(email) is not None)


@pytest.mark.parametrize("first", [0, 1], ids=["old-first", "new-first"])
def test_it_changes_when_both_are_confirmed(app: Flask, admin: FlaskClient, acme: str, first: int) -> None:
    links = request_change(app, admin)
    assert NEW in admin.get("/account").text
    assert confirm(app.test_client(), links[first])[0] == 303
    assert exists(app, OLD)
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        assert confirm(app.test_client(), links[1 - first]) == (303, "/sign-in")
        wait_for(lambda: {OLD, NEW} <= texts(peer).keys())
        assert all(f"from {OLD} to {NEW}" in text for text in texts(peer).values())
        assert "tell your system administrator immediately" in texts(peer)[OLD]
    assert not exists(app, OLD)
    assert admin.get("/account").status_code == 302, "it is signed out everywhere"
    post(app.test_client(), "/sign-in", email=NEW, password=PASSWORD)
    assert role_of(app, NEW, acme) == "administrator"
    for link in links:
        assert app.test_client().get(link).status_code == 404


@pytest.mark.parametrize("which", [0, 1], ids=["old", "new"])
def test_one_confirmation_changes_nothing_however_often(app: Flask, admin: FlaskClient, which: int) -> None:
    link = request_change(app, admin)[which]
    browser = app.test_client()
    for _ in range(3):
        assert browser.get(link).status_code == 200
        assert confirm(browser, link)[0] == 303
    assert exists(app, OLD)
    assert not exists(app, NEW)


def test_opening_the_links_confirms_nothing(app: Flask, admin: FlaskClient) -> None:
    for link in request_change(app, admin):
        for _ in range(2):
            assert app.test_client().get(link).status_code == 200
            assert app.test_client().head(link).status_code == 200
            assert app.test_client().post(link).status_code == 400, "CSRF"
    assert exists(app, OLD)


def test_it_needs_the_password(app: Flask, admin: FlaskClient) -> None:
    with admin.session_transaction() as session:
        session["fs_paa"] = 0
    assert "/account/confirm" in (admin.get(CHANGE).location or "")
    token = csrf_token(admin.get("/account").text)
    assert "/account/confirm" in (admin.post(CHANGE, data={"email": NEW, "csrf_token": token}).location or "")
    with app.app_context():
        assert sql("SELECT count(*) FROM email_changes")[0][0] == 0


def test_an_address_with_an_account_looks_like_any_other_until_its_owner_confirms(
    app: Flask, admin: FlaskClient, sign_in: SignIn
) -> None:
    sign_in(NEW)
    old, new = request_change(app, admin)
    assert confirm(app.test_client(), old)[0] == 303
    status, page = confirm(app.test_client(), new)
    assert (status, "Another account has this email address" in page) == (404, True)
    assert exists(app, OLD)
    signed_in(app, NEW)


def test_an_invitation_does_not_keep_an_address_from_its_owner(app: Flask, admin: FlaskClient, globex: str) -> None:
    make_account(app, "other@globex.example", administers=globex)
    invite(app, globex, NEW, "viewer", "other@globex.example")
    for link in request_change(app, admin):
        assert confirm(app.test_client(), link)[0] == 303
    assert not exists(app, OLD)
    browser = app.test_client()
    post(browser, "/sign-in", email=NEW, password=PASSWORD)
    assert "invites you to Globex" in browser.get("/account").text


def test_a_newer_request_a_cancellation_and_time_end_the_links(app: Flask, admin: FlaskClient) -> None:
    older = request_change(app, admin)
    newer = request_change(app, admin)
    for link in older:
        assert app.test_client().get(link).status_code == 404
    with app.app_context():
        sql("UPDATE email_changes SET expires_at = now() - interval '1 second'")
    assert app.test_client().get(newer[0]).status_code == 404
    latest = request_change(app, admin)
    assert post(admin, "/account", "/account/email/cancel").location == "/account"
    assert confirm(app.test_client(), latest[0])[0] == 404
    assert exists(app, OLD)


def test_a_link_for_a_new_password_ends_with_the_old_address(app: Flask, admin: FlaskClient) -> None:
    links = request_change(app, admin)
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        post(app.test_client(), "/forgotten-password", email=OLD)
        wait_for(lambda: peer.messages)
        reset = re.search(r"http://portal\.test(/forgotten-password/\S+)", texts(peer)[OLD])
    assert reset
    for link in links:
        confirm(app.test_client(), link)
    answer = app.test_client().get(reset[1])
    assert answer.status_code == 302
    assert exists(app, NEW)


def test_requests_are_limited(app: Flask, admin: FlaskClient) -> None:
    assert [post(admin, CHANGE, email=f"a{number}@new.example").status_code for number in range(6)] == [303] * 5 + [422]
    assert post(admin, CHANGE, email=OLD).status_code == 422
    assert within(app, lambda: account_with(OLD).email) == OLD
    with app.app_context():
        sql("UPDATE accounts SET email = 'another@new.example' WHERE email = :email", email=OLD)
    assert post(admin, CHANGE, email="a9@new.example").status_code == 422, "a new address starts no new count"


@pytest.mark.parametrize("way", ["changed", "reset", "command"])
def test_a_new_password_ends_the_change_that_a_thief_of_the_old_one_asked_for(
    app: Flask, admin: FlaskClient, way: str
) -> None:
    links = request_change(app, admin)
    other = "a new password of the owner"
    if way == "changed":
        answer = post(admin, "/account/password", password=PASSWORD, new_password=other, new_password_confirm=other)
        assert answer.status_code == 302
    elif way == "reset":
        with app.app_context():
            token = generate_reset_password_token(account_with(OLD))  # type: ignore[no-untyped-call]
        page = f"/forgotten-password/{token}"
        assert post(app.test_client(), page, password=other, password_confirm=other).status_code == 302
    else:
        with app.app_context():
            assert account_service.change_password(account_with(OLD), other) is None
    for link in links:
        assert app.test_client().get(link).status_code == 404


def test_an_account_that_is_deactivated_meanwhile_changes_nothing(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        account_service.lock_access()
        with blocked_until_done(app, lambda: email_change.start(account_with(OLD), NEW)) as starting:
            assert members.set_active(account_with(OLD), False, by=None) is None
        assert starting.result() is not None
        assert not sql("SELECT FROM email_changes")


def test_two_requests_at_once_leave_the_later_one(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        account_service.lock_access()
        with blocked_until_done(app, lambda: email_change.start(account_with(OLD), NEW)) as starting:
            assert email_change.start(account_with(OLD), "first@new.example") is None
        assert starting.result() is None
        assert [tuple(row) for row in sql("SELECT new_email FROM email_changes")] == [(NEW,)]


def test_a_deactivated_account_that_nobody_has_used_keeps_its_address(
    app: Flask, admin: FlaskClient, globex: str
) -> None:
    make_account(app, "other@globex.example", administers=globex)
    invite(app, globex, NEW, "viewer", "other@globex.example")
    with app.app_context():
        assert members.set_active(account_with(NEW), False, by=None) is None
    answers = [confirm(app.test_client(), link)[0] for link in request_change(app, admin)]
    assert answers == [303, 404]
    assert within(app, lambda: account_with(NEW).active) is False
