"""Signing in and out, and changing and resetting a password, in a browser."""

import re
import subprocess
import sys

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal import create_app
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.config import ROOT, Settings
from portal.errors import Refusal
from portal.extensions import db
from tests.authenticator import give_password
from tests.conftest import SignIn
from tests.pages import PASSWORD, post


def test_signing_in_opens_the_workspace_and_signing_out_ends_the_session(admin: FlaskClient, acme: str) -> None:
    assert admin.get("/").location == f"/tenants/{acme}/"
    assert post(admin, f"/tenants/{acme}/deliveries", "/sign-out").status_code == 302
    assert "/sign-in" in admin.get("/").headers["Location"]


def test_a_wrong_password_and_an_unknown_address_get_the_same_response(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        account_service.add("admin@acme.example", PASSWORD)
    wrong = post(client, "/sign-in", email="admin@acme.example", password="wrong wrong wrong")
    unknown = post(client, "/sign-in", email="nobody@acme.example", password="wrong wrong wrong")
    pages = [
        re.sub(r'value="[^"]*"|"X-CSRFToken": "[^"]*"', "", answer.get_data(as_text=True))
        for answer in (wrong, unknown)
    ]
    assert wrong.status_code == unknown.status_code
    assert pages[0] == pages[1]
    assert "is incorrect" in pages[0]


def test_a_changed_password_ends_the_other_sessions(sign_in: SignIn, acme: str) -> None:
    here = sign_in("admin@acme.example", administers=acme)
    there = sign_in("admin@acme.example", administers=acme)
    new = "an even longer password"
    answer = post(here, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    assert here.get(f"/tenants/{acme}/deliveries").status_code == 200
    assert there.get(f"/tenants/{acme}/deliveries").status_code == 302


def test_passwords_are_hashed_with_argon2(app: Flask) -> None:
    with app.app_context():
        account_service.add("admin@acme.example", PASSWORD)
        stored = db.session.scalars(select(Account.password)).one() or ""
    assert "$argon2id$" in stored
    assert PASSWORD not in stored


def test_hashing_a_password_takes_64_mib(settings: Settings) -> None:
    app = create_app(settings)  # the hashing of the fixture's is made cheap
    with app.app_context():
        assert "$argon2id$v=19$m=65536,t=3,p=4$" in app.extensions["security"].pwd_context.hash(PASSWORD)


def test_a_short_password_and_a_bad_address_are_refused(context: Flask) -> None:
    assert isinstance(account_service.add("admin@acme.example", "short"), Refusal)
    assert isinstance(account_service.add("no address", PASSWORD), Refusal)


def test_an_account_can_administer_several_tenants_and_keeps_its_password(
    app: Flask, sign_in: SignIn, acme: str, globex: str
) -> None:
    sign_in("admin@acme.example", administers=acme)
    sign_in("Admin@acme.example", administers=globex)
    give_password(browser := app.test_client(), "Admin@acme.example")
    page = browser.get("/").get_data(as_text=True)
    assert "Acme" in page
    assert "Globex" in page
    assert browser.get(f"/tenants/{globex}/deliveries").status_code == 200


def test_passwords_may_contain_any_letters(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        account_service.add("admin@acme.example", "Größer-als-zehn-①")
    answer = post(client, "/sign-in", email="admin@acme.example", password="Größer-als-zehn-①")
    assert answer.status_code == 302


# As nobody, where the tests run as root: root may do what others may not.
IN_A_NICE_PROCESS = """
import os
from portal.accounts import passwords
os.nice(10)
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
from threading import get_native_id
passwords._give_way()
print(os.getpriority(os.PRIO_PROCESS, get_native_id()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_passwords_are_checked_in_a_portal_that_gives_way_already() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_NICE_PROCESS], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout or -1) >= 10, done.stderr
