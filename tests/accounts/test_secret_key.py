"""Another SECRET_KEY locks nobody out, and hashes of earlier versions, which depend on it, are replaced."""

import base64
import hmac
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask_security.recoverable import generate_reset_password_token
from pydantic import SecretStr
from sqlalchemy import select, update

from portal import create_app
from portal.accounts.models import Account
from portal.config import Settings
from portal.extensions import db
from tests.authenticator import give_code, give_password, is_signed_in, set_up
from tests.conftest import TEST_SECRET, SignIn, close_connections, make_account, make_passwords_cheap
from tests.pages import PASSWORD, post

EMAIL = "admin@acme.example"
WithKeys = Callable[..., Flask]


NEW_KEY = "another key, which is as long as it is random: 7Jq2wXz"


@pytest.fixture
def with_keys(settings: Settings) -> Iterator[WithKeys]:
    """A function that returns the portal with another SECRET_KEY, on the same database."""
    apps = []

    def with_keys(key: str, *fallbacks: str) -> Flask:
        earlier = SecretStr(",".join(fallbacks)) if fallbacks else None
        app = create_app(settings.model_copy(update={"secret_key": SecretStr(key), "secret_key_fallbacks": earlier}))
        make_passwords_cheap(app)
        apps.append(app)
        return app

    yield with_keys
    for app in apps:
        close_connections(app)


def hash_of_an_earlier_version(app: Flask, password: str, key: str) -> str:
    """Return what migration 0003 makes of a hash by Flask-Security with the key as its salt."""
    digest = base64.b64encode(hmac.digest(key.encode(), password.encode(), "sha512"))
    return "secret-key:" + str(app.extensions["security"].pwd_context.hash(digest))


def with_old_hash(app: Flask, key: str = TEST_SECRET) -> None:
    make_account(app, EMAIL)
    with app.app_context():
        stored = hash_of_an_earlier_version(app, PASSWORD, key)
        db.session.execute(update(Account).where(Account.email == EMAIL).values(password=stored))
        db.session.commit()


def give_right_password(app: Flask) -> None:
    browser = app.test_client()
    give_password(browser, EMAIL)
    assert is_signed_in(browser)


def stored_hash(app: Flask) -> str:
    with app.app_context():
        return db.session.scalars(select(Account.password)).one() or ""


def test_another_secret_key_locks_nobody_out(app: Flask, with_keys: WithKeys) -> None:
    make_account(app, EMAIL)
    give_right_password(with_keys(NEW_KEY))


def test_a_second_factor_outlives_the_secret_key(with_keys: WithKeys, sign_in: SignIn) -> None:
    phone, _ = set_up(sign_in(EMAIL))
    browser = with_keys(NEW_KEY).test_client()
    give_password(browser, EMAIL)
    give_code(browser, phone.code())
    assert is_signed_in(browser)


def test_a_session_and_a_reset_link_outlive_the_key_that_is_named_as_a_fallback(
    app: Flask, with_keys: WithKeys, sign_in: SignIn
) -> None:
    cookie = sign_in(EMAIL).get_cookie("session")
    assert cookie
    with app.test_request_context():
        link = generate_reset_password_token(db.session.scalars(select(Account)).one())  # type: ignore[no-untyped-call]
    for fallbacks, status in ((), 302), ((TEST_SECRET,), 200):
        client = with_keys(NEW_KEY, *fallbacks).test_client()
        client.set_cookie(cookie.key, cookie.value)
        assert client.get("/account").status_code == status
        client = client.application.test_client()
        assert client.get(f"/forgotten-password/{link}").status_code == status


def test_a_hash_of_an_earlier_version_is_replaced_at_sign_in(app: Flask, with_keys: WithKeys) -> None:
    with_old_hash(app)
    give_right_password(app)
    assert stored_hash(app).startswith("$argon2id$")
    give_right_password(with_keys(NEW_KEY))


def test_a_hash_of_an_earlier_version_needs_its_key_as_a_fallback(app: Flask, with_keys: WithKeys) -> None:
    with_old_hash(app, "the-key-of-last-year-0123456789-abcdef")
    lost = with_keys(NEW_KEY).test_client()
    assert "is incorrect" in post(lost, "/sign-in", email=EMAIL, password=PASSWORD).text
    kept = with_keys(NEW_KEY, "an-even-earlier-key-9876543210-fedcba", "the-key-of-last-year-0123456789-abcdef")
    wrong = post(kept.test_client(), "/sign-in", email=EMAIL, password="wrong wrong wrong")
    assert "is incorrect" in wrong.text
    give_right_password(kept)
    give_right_password(with_keys(NEW_KEY))


def test_a_password_with_a_hash_of_an_earlier_version_can_be_changed(app: Flask, sign_in: SignIn) -> None:
    browser = sign_in(EMAIL)
    with_old_hash(app)
    new = "an even longer password"
    answer = post(browser, "/account/password", password=PASSWORD, new_password=new, new_password_confirm=new)
    assert answer.status_code == 302
    assert stored_hash(app).startswith("$argon2id$")
