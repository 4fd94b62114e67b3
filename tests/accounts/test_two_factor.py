"""Two-factor authentication: set-up, sign-in, recovery, and requiring it of all accounts."""

import base64
import re
from html import unescape
from io import BytesIO

import pytest
import zxingcpp
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import select

from portal.accounts.models import Account
from portal.extensions import db
from tests.authenticator import SET_UP, give_code, give_password, is_signed_in, recovery_codes, set_up
from tests.conftest import SignIn
from tests.pages import HTMX, PASSWORD, csrf_token, post

EMAIL = "admin@acme.example"
POLICY = "/system/sign-in"


def test_signing_in_requires_a_code(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    assert is_signed_in(admin)
    browser = app.test_client()
    assert give_password(browser, EMAIL).location.startswith("/sign-in/code")
    assert not is_signed_in(browser)
    give_password(browser, EMAIL)
    wrong = give_code(browser, "000000")
    assert "is incorrect" in wrong.get_data(as_text=True)
    assert give_code(browser, phone.code()).status_code == 302
    assert is_signed_in(browser)


def test_it_is_turned_on_by_a_correct_code(app: Flask, admin: FlaskClient) -> None:
    answer = post(admin, SET_UP, code="123456")
    assert answer.status_code in {302, 422}
    page = admin.get(SET_UP).get_data(as_text=True)
    again = admin.post(SET_UP, data={"csrf_token": csrf_token(page), "code": "12345"})
    assert again.status_code == 422
    assert "This code is incorrect" in again.get_data(as_text=True)
    key = page.partition('id="totp-key">')[2].partition("<")[0]
    assert key in again.get_data(as_text=True), "a typing error does not require another scan"
    give_password(browser := app.test_client(), EMAIL)
    assert is_signed_in(browser)


def test_the_page_shows_the_secret_as_qr_code_and_uri(admin: FlaskClient) -> None:
    page = admin.get(SET_UP).get_data(as_text=True)
    qr_code, uri = (
        re.search(r'src="data:image/png;base64,([^"]+)"', page),
        re.search(r'href="(otpauth:[^"]+)"', page),
    )
    assert qr_code
    assert uri
    assert unescape(uri[1]).startswith("otpauth://totp/PBX%20Notification%20Portal:admin@acme.example?secret=")
    (read,) = zxingcpp.read_barcodes(Image.open(BytesIO(base64.b64decode(qr_code[1]))))
    assert read.text == unescape(uri[1])


def test_a_recovery_code_works_once(app: Flask, admin: FlaskClient) -> None:
    _, codes = set_up(admin)
    assert len(set(codes)) == 10
    browser = app.test_client()
    give_password(browser, EMAIL)
    assert post(browser, "/sign-in/recovery-code", code=codes[3].upper().replace("-", " ")).status_code == 302
    assert "9 recovery codes left" in browser.get("/account").get_data(as_text=True)
    other = app.test_client()
    give_password(other, EMAIL)
    assert "already used" in post(other, "/sign-in/recovery-code", code=codes[3]).get_data(as_text=True)
    assert not is_signed_in(other)


def test_new_recovery_codes_replace_the_old_ones(app: Flask, admin: FlaskClient) -> None:
    _, old = set_up(admin)
    new = recovery_codes(post(admin, "/account", "/account/recovery-codes"))
    assert not set(old) & set(new)
    browser = app.test_client()
    give_password(browser, EMAIL)
    assert post(browser, "/sign-in/recovery-code", code=old[0]).status_code == 200
    assert post(browser, "/sign-in/recovery-code", code=new[0]).status_code == 302


def test_another_app_replaces_the_first(app: Flask, admin: FlaskClient) -> None:
    first, _ = set_up(admin)
    second, _ = set_up(admin)
    browser = app.test_client()
    give_password(browser, EMAIL)
    assert give_code(browser, first.code()).status_code == 200
    assert give_code(browser, second.code()).status_code == 302


def test_it_can_be_turned_off(app: Flask, admin: FlaskClient) -> None:
    set_up(admin)
    assert post(admin, "/account", "/account/two-factor/off").status_code == 303
    give_password(browser := app.test_client(), EMAIL)
    assert is_signed_in(browser)


def test_a_command_turns_it_off(app: Flask, admin: FlaskClient) -> None:
    set_up(admin)
    run = app.test_cli_runner().invoke
    result = run(args=["accounts", "reset-two-factor", EMAIL.upper()])
    assert result.exit_code == 0, result.output
    give_password(browser := app.test_client(), EMAIL)
    assert is_signed_in(browser)
    assert run(args=["accounts", "reset-two-factor", "nobody@acme.example"]).exit_code == 1


def test_if_required_every_page_leads_to_the_set_up(system: FlaskClient, admin: FlaskClient, acme: str) -> None:
    assert post(system, POLICY, f"{POLICY}/two-factor", enabled="y").status_code == 303
    for browser in (admin, system):
        for path in ("/", "/account", f"/tenants/{acme}/deliveries", POLICY):
            assert browser.get(path).location == SET_UP, path
    fragment = admin.get(f"/tenants/{acme}/deliveries", headers=HTMX)
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (204, SET_UP)
    set_up(admin)
    assert admin.get(f"/tenants/{acme}/deliveries").status_code == 200
    page = admin.get("/account").get_data(as_text=True)
    assert "Turn off" not in page
    post(admin, "/account", "/account/two-factor/off")
    assert "requires two-factor" in admin.get("/account").get_data(as_text=True)


def test_signing_out_works_before_the_set_up(system: FlaskClient) -> None:
    post(system, POLICY, f"{POLICY}/two-factor", enabled="y")
    system.get(SET_UP)
    assert post(system, SET_UP, "/sign-out").status_code in {302, 303}
    assert not is_signed_in(system)


def test_only_system_administrators_can_require_it(system: FlaskClient, admin: FlaskClient) -> None:
    assert admin.get(POLICY).status_code == 404
    assert post(admin, "/account", f"{POLICY}/two-factor", enabled="y").status_code == 404
    assert admin.get("/account").status_code == 200
    answer = post(system, POLICY, f"{POLICY}/two-factor", htmx=True)
    assert answer.get_data(as_text=True).lstrip().startswith('<form class="panel list" id="required"')


@pytest.mark.parametrize("path", ["/account/two-factor/off", "/account/recovery-codes"])
def test_weakening_an_account_requires_the_password_again(
    app: Flask, admin: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(admin)
    with admin.session_transaction() as session:
        session["fs_paa"] = session["fs_gexp"] = 1.0
    answer = post(admin, "/account", path)
    assert answer.location == "/account/confirm?next=/account"
    assert admin.get(SET_UP).location == f"/account/confirm?next={SET_UP}"
    with app.app_context():
        assert db.session.scalars(select(Account)).one().has_two_factor
    assert post(admin, "/account/confirm", password="not that one").status_code == 200
    assert post(admin, "/account", path).location == "/account/confirm?next=/account"
    assert post(admin, "/account/confirm?next=/account", "/account/confirm", password=PASSWORD).status_code == 302
    assert post(admin, "/account", path).status_code in {200, 303}


def test_setting_it_up_ends_the_sessions_that_began_without_it(sign_in: SignIn, acme: str) -> None:
    here, there = sign_in(EMAIL, administers=acme), sign_in(EMAIL, administers=acme)
    set_up(here)
    assert is_signed_in(here)
    assert not is_signed_in(there)
