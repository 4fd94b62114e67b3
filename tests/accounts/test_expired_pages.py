"""A page of signing in that was open for too long is shown again, with what was typed and is no secret."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_security.recoverable import generate_reset_password_token
from sqlalchemy import select

from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.audit.models import AuditEntry
from portal.database.scope import every_tenant
from portal.extensions import db
from tests.authenticator import give_password, is_signed_in, set_up
from tests.pages import PASSWORD, csrf_token
from tests.sql import sql

EMAIL = "admin@acme.example"
SENTENCE = "This page was open for too long."


@pytest.fixture
def account(app: Flask) -> str:
    with app.app_context():
        account_service.add(EMAIL, PASSWORD)
    return EMAIL


def test_a_sign_in_page_keeps_the_email_address(app: Flask, client: FlaskClient, account: str) -> None:
    token = csrf_token(client.get("/sign-in?next=/account").text)
    client.delete_cookie("session")
    data = {"csrf_token": token, "email": EMAIL, "password": PASSWORD, "next": "/account"}
    shown = client.post("/sign-in", data=data)
    assert shown.status_code == 422
    assert SENTENCE in shown.text
    assert f'value="{EMAIL}"' in shown.text
    assert PASSWORD not in shown.text
    assert not is_signed_in(client)
    with app.app_context(), every_tenant():
        assert "account.sign_in_failed" not in db.session.scalars(select(AuditEntry.action)).all()
    assert client.post("/sign-in", data=data | {"csrf_token": csrf_token(shown.text)}).location == "/account"


@pytest.mark.parametrize("email", [EMAIL, "nobody@acme.example", "no address"])
def test_a_request_for_a_new_password_keeps_the_email_address(client: FlaskClient, account: str, email: str) -> None:
    token = csrf_token(client.get("/forgotten-password").text)
    client.delete_cookie("session")
    shown = client.post("/forgotten-password", data={"csrf_token": token, "email": email})
    assert shown.status_code == 422
    assert SENTENCE in shown.text
    assert f'value="{email}"' in shown.text
    assert "will receive an email" not in shown.text
    sent = client.post("/forgotten-password", data={"csrf_token": csrf_token(shown.text), "email": email})
    assert "will receive an email" in sent.text


def test_a_new_password_is_not_saved_and_the_link_stays_valid(app: Flask, client: FlaskClient, account: str) -> None:
    with app.test_request_context():
        token = generate_reset_password_token(account_service.find(EMAIL))  # type: ignore[no-untyped-call]
    link = f"/forgotten-password/{token}"
    token = csrf_token(client.get(link).text)
    client.delete_cookie("session")
    new = {"password": "another long password", "password_confirm": "another long password"}
    shown = client.post(link, data=new | {"csrf_token": token})
    assert shown.status_code == 422
    assert SENTENCE in shown.text
    with app.app_context():
        assert db.session.scalar(select(Account.password)) == sql("SELECT password FROM accounts")[0][0]
    assert client.post(link, data=new | {"csrf_token": csrf_token(shown.text)}).status_code == 302
    assert give_password(client, EMAIL, "another long password").status_code == 302


def test_a_code_page_whose_session_is_gone_leads_to_the_sign_in_page(admin: FlaskClient, client: FlaskClient) -> None:
    phone, _codes = set_up(admin)
    page = client.get(give_password(client, EMAIL).location).text
    client.delete_cookie("session")
    answer = client.post("/sign-in/code", data={"csrf_token": csrf_token(page), "code": phone.code()})
    assert answer.location.startswith("/sign-in")
    assert SENTENCE in client.get(answer.location).text
    assert not is_signed_in(client)


@pytest.mark.parametrize("path", ["/sign-in/code", "/sign-in/recovery-code"])
def test_a_valid_code_without_a_valid_token_is_not_used(admin: FlaskClient, client: FlaskClient, path: str) -> None:
    phone, codes = set_up(admin)
    give_password(client, EMAIL)
    data = {"csrf_token": "of another page", "code": phone.code() if path.endswith("/code") else codes[0]}
    shown = client.post(path, data=data)
    assert shown.status_code == 422
    assert SENTENCE in shown.text
    assert not is_signed_in(client)
    assert client.post(path, data=data | {"csrf_token": csrf_token(shown.text)}).status_code == 302
    assert is_signed_in(client)


def test_a_stranger_cannot_sign_an_account_out(admin: FlaskClient) -> None:
    assert admin.post("/sign-in/code", data={"code": "123456"}).status_code == 400
    assert is_signed_in(admin)


def test_without_a_token_nothing_counts_against_the_account(client: FlaskClient, account: str) -> None:
    statuses = {client.post("/sign-in", data={"email": EMAIL, "password": "wrong"}).status_code for _ in range(15)}
    assert statuses == {422}
    assert give_password(client, EMAIL).status_code == 302


@pytest.mark.parametrize("path", ["/sign-in", "/forgotten-password"])
def test_what_no_page_sends_is_rejected_unread(client: FlaskClient, path: str) -> None:
    long = {"email": "a" * 400_000 + "@acme.example"}
    assert client.post(path, data=long).status_code == 400
    assert client.post(path, json=long).status_code == 400
    assert client.post(path, data="{", content_type="application/json").status_code == 400
