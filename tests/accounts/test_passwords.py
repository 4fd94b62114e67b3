"""Signing in and out, changing and recovering a password, as a person does it in a browser."""

import re

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.accounts import registration
from portal.accounts.models import Account
from portal.errors import Refusal
from portal.extensions import db
from tests.conftest import SignIn
from tests.pages import PASSWORD, post


def test_signing_in_leads_to_the_work_and_signing_out_ends_it(admin: FlaskClient, acme: str) -> None:
    assert admin.get("/").location == f"/tenants/{acme}/"
    assert post(admin, f"/tenants/{acme}/deliveries", "/sign-out").status_code == 302
    assert "/sign-in" in admin.get("/").headers["Location"]


def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        registration.add("admin@acme.example", PASSWORD)
    wrong = post(client, "/sign-in", email="admin@acme.example", password="wrong wrong wrong")
    unknown = post(client, "/sign-in", email="nobody@acme.example", password="wrong wrong wrong")
    without_what_was_typed = [
        re.sub(r'value="[^"]*"|"X-CSRFToken": "[^"]*"', "", answer.get_data(as_text=True))
        for answer in (wrong, unknown)
    ]
    assert wrong.status_code == unknown.status_code
    assert without_what_was_typed[0] == without_what_was_typed[1]
    assert "is not right" in without_what_was_typed[0]


def test_a_changed_password_ends_the_other_sessions(sign_in: SignIn, acme: str) -> None:
    here = sign_in("admin@acme.example", administers=acme)
    there = sign_in("admin@acme.example", administers=acme)
    new = "an even longer password"
    answer = post(here, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    assert here.get(f"/tenants/{acme}/deliveries").status_code == 200
    assert there.get(f"/tenants/{acme}/deliveries").status_code == 302


def test_passwords_are_kept_with_argon2(app: Flask) -> None:
    with app.app_context():
        registration.add("admin@acme.example", PASSWORD)
        stored = db.session.scalars(select(Account.password)).one()
    assert "$argon2id$" in stored
    assert PASSWORD not in stored


def test_a_short_password_and_a_bad_address_are_refused(context: Flask) -> None:
    assert isinstance(registration.add("admin@acme.example", "short"), Refusal)
    assert isinstance(registration.add("no address", PASSWORD), Refusal)


def test_an_account_can_administer_several_tenants_and_keeps_its_password(
    sign_in: SignIn, acme: str, globex: str
) -> None:
    sign_in("admin@acme.example", administers=acme)
    browser = sign_in("Admin@acme.example", administers=globex)
    page = browser.get("/").get_data(as_text=True)
    assert "Acme" in page
    assert "Globex" in page
    assert browser.get(f"/tenants/{globex}/deliveries").status_code == 200


def test_a_password_in_any_letters_signs_in(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        registration.add("admin@acme.example", "Größer-als-zehn-①")
    answer = post(client, "/sign-in", email="admin@acme.example", password="Größer-als-zehn-①")
    assert answer.status_code == 302
