"""Signing in at a provider: whose account it is, the second factor, and accounts without a password."""

import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import select

from portal.accounts import service as account_service
from portal.accounts.models import AccountIdentity, AccountSession
from portal.accounts.single_sign_on import identities
from portal.accounts.single_sign_on import provider as portal_provider
from portal.audit.labels import UNKNOWN_ACCOUNT
from portal.extensions import db
from portal.people import members
from portal.web.slots import Bound, Slots
from tests.accounts.single_sign_on.conftest import (
    BEGIN,
    ChangeSettings,
    change_settings,
    come_back,
    go,
    provider,
    sign_in_at,
)
from tests.accounts.test_sign_in_audit import done
from tests.authenticator import give_code, give_password, is_signed_in, set_up
from tests.conftest import SignIn, make_account
from tests.openid_provider import DISCOVERY, KEYS, TOKEN, OpenIdProvider, rsa_key
from tests.pages import PASSWORD, csrf_token, post
from tests.sql import sql

__all__ = ["change_settings", "provider"]

EMAIL = "admin@acme.example"
NO_ACCESS = "you have no access to this portal"


@pytest.fixture
def account(app: Flask, acme: str) -> str:
    """The email address of Acme's administrator, who is not signed in."""
    make_account(app, EMAIL, administers=acme)
    return EMAIL


def bound_subjects(app: Flask) -> list[str]:
    with app.app_context():
        return list(db.session.scalars(select(AccountIdentity.subject)))


def test_the_first_sign_in_binds_the_account_and_is_audited(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    page = client.get("/sign-in").text
    assert "Sign in with Acme ID" in page
    assert "Or with a password" in page
    answer = sign_in_at(client, provider)
    assert (answer.status_code, answer.location) == (302, "/")
    assert is_signed_in(client)
    assert bound_subjects(app) == ["person-1"]
    assert done(app) == [(EMAIL, "bound", EMAIL), (EMAIL, "signed_in_through", "Acme ID")]
    with app.app_context():
        assert not db.session.scalars(select(AccountSession)).one().remembered
    post(client, "/account", "/sign-out")
    assert not is_signed_in(client)
    sign_in_at(client, provider)
    assert is_signed_in(client)
    assert len(bound_subjects(app)) == 1


def test_it_returns_to_the_page_that_was_asked_for(client: FlaskClient, account: str, provider: OpenIdProvider) -> None:
    wanted = client.get("/tenants/acme.example/keys", follow_redirects=True).text
    link = wanted.split(f'href="{BEGIN}')[1].split('"')[0].replace("&amp;", "&")
    assert sign_in_at(client, provider, BEGIN + link).location.endswith("/tenants/acme.example/keys")


def test_another_email_address_at_the_provider_opens_the_same_account(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    make_account(app, "root@pbx.example", system=True)
    sign_in_at(client, provider)
    post(client, "/account", "/sign-out")
    provider.email = "root@pbx.example"
    sign_in_at(client, provider)
    assert EMAIL in client.get("/account").text


def test_the_email_address_of_a_bound_account_opens_nothing_for_somebody_else(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    sign_in_at(client, provider)
    post(client, "/account", "/sign-out")
    provider.subject = "person-2"
    answer = sign_in_at(client, provider)
    assert answer.status_code == 403
    assert NO_ACCESS in answer.text
    with app.app_context():
        found = account_service.find(EMAIL)
        assert found is not None
        identities.unbind(found)
    sign_in_at(client, provider)
    assert is_signed_in(client)
    assert bound_subjects(app) == ["person-2"]


def test_a_deactivated_account_and_none_get_the_same_page(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    sign_in_at(client, provider)
    with app.app_context():
        found = account_service.find(EMAIL)
        assert found is not None
        members.set_active(found, False, by=None)
    deactivated = sign_in_at(client, provider)
    provider.subject, provider.email = "person-2", "nobody@acme.example"
    nobody = sign_in_at(client, provider)
    assert deactivated.status_code == nobody.status_code == 403
    assert deactivated.text.split("<main")[1] == nobody.text.split("<main")[1]
    assert not is_signed_in(client)
    assert done(app)[-2:] == [("somebody", "sign_in_failed", EMAIL), ("somebody", "sign_in_failed", UNKNOWN_ACCOUNT)]
    with app.app_context():
        assert account_service.find("nobody@acme.example") is None


@pytest.mark.parametrize(
    ("claims", "changed", "signs_in"),
    [
        ({"email_verified": True}, {}, True),
        ({"email_verified": False}, {}, False),
        ({"email_verified": None}, {}, False),
        ({"email_verified": None}, {"sso_trust_email": True}, True),
        ({"email_verified": False}, {"sso_trust_email": True}, False),
        ({"email_verified": True}, {"sso_email_domains": ("acme.example",)}, True),
        ({"email_verified": True}, {"sso_email_domains": ("pbx.example",)}, False),
        ({"email": "ADMIN@ACME.EXAMPLE"}, {}, True),
        ({"email": ["admin@acme.example"]}, {}, False),
        ({"email": "admin@acme.example, x@y.example"}, {}, False),
        ({"email": None}, {}, True),  # from the userinfo
    ],
)
def test_only_a_verified_email_address_finds_an_account(
    client: FlaskClient,
    account: str,
    provider: OpenIdProvider,
    change_settings: ChangeSettings,
    claims: dict[str, Any],
    changed: dict[str, Any],
    signs_in: bool,
) -> None:
    provider.claims |= claims
    change_settings(**changed)
    assert sign_in_at(client, provider).status_code == (302 if signs_in else 403)
    assert is_signed_in(client) is signs_in


def test_the_portals_code_is_asked_for_after_the_provider(
    app: Flask, sign_in: SignIn, acme: str, client: FlaskClient, provider: OpenIdProvider
) -> None:
    phone, _ = set_up(sign_in(EMAIL, administers=acme))
    answer = sign_in_at(client, provider, f"{BEGIN}?next=/tenants/acme.example/keys")
    assert "/sign-in/code" in answer.location
    assert not is_signed_in(client)
    assert not bound_subjects(app)
    assert give_code(client, phone.code(1)).status_code == 302
    assert is_signed_in(client)
    assert bound_subjects(app) == ["person-1"]
    assert done(app)[-1] == (EMAIL, "signed_in_through", "Acme ID")


def test_a_password_after_an_unfinished_single_sign_on_binds_nothing(
    app: Flask, sign_in: SignIn, acme: str, client: FlaskClient, provider: OpenIdProvider
) -> None:
    phone, _ = set_up(sign_in(EMAIL, administers=acme))
    sign_in_at(client, provider)
    give_password(client, EMAIL)
    give_code(client, phone.code(1))
    assert is_signed_in(client)
    assert not bound_subjects(app)
    assert done(app)[-1] == (EMAIL, "signed_in", "")


@pytest.mark.parametrize(
    ("claims", "trusted", "asks"),
    [
        ({"amr": ["pwd", "mfa"]}, ("mfa",), False),
        ({"acr": "gold"}, ("mfa", "gold"), False),
        ({}, ("*",), False),
        ({"amr": ["pwd"]}, ("mfa",), True),
        ({"amr": "mfa"}, ("mfa",), True),  # not a list: not what RFC 8176 says
        ({"amr": ["mfa"]}, (), True),
        ({"amr": [["mfa"]], "acr": {"mfa": 1}}, ("mfa",), True),
    ],
)
def test_the_providers_second_factor_is_trusted_by_setting_only(
    app: Flask,
    sign_in: SignIn,
    acme: str,
    client: FlaskClient,
    provider: OpenIdProvider,
    change_settings: ChangeSettings,
    claims: dict[str, Any],
    trusted: tuple[str, ...],
    asks: bool,
) -> None:
    set_up(sign_in(EMAIL, administers=acme))
    provider.claims |= claims
    change_settings(sso_two_factor=trusted)
    sign_in_at(client, provider)
    assert is_signed_in(client) is not asks


@pytest.mark.parametrize("trusted", [(), ("mfa",)])
def test_the_two_factor_policy_holds(
    app: Flask,
    client: FlaskClient,
    account: str,
    provider: OpenIdProvider,
    change_settings: ChangeSettings,
    trusted: tuple[str, ...],
) -> None:
    with app.app_context():
        account_service.require_two_factor(True)
    change_settings(sso_two_factor=trusted)
    provider.claims["amr"] = ["mfa"]
    sign_in_at(client, provider)
    answer = client.get("/tenants/acme.example/overview")
    if trusted:
        assert answer.status_code == 200
    else:
        assert answer.location == "/account/two-factor"
        set_up(client)
        assert client.get("/tenants/acme.example/overview").status_code == 200


def test_an_unreachable_provider_is_said_and_passwords_still_work(
    client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    provider.answers[DISCOVERY] = (503, b"")
    answer = client.get(BEGIN)
    assert answer.status_code == 503
    assert "Acme ID cannot be reached" in answer.text
    assert "You can also sign in with your password" in answer.text
    client.get(BEGIN)
    assert provider.count(DISCOVERY) == 1, "not every request waits for it"
    give_password(client, EMAIL)
    assert is_signed_in(client)


def test_a_provider_that_does_not_answer_holds_few_threads(
    client: FlaskClient, account: str, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_provider, "REQUESTS", Slots(Bound(0, 0)))  # others hold all of them
    assert client.get(BEGIN).status_code == 429
    give_password(client, EMAIL)
    assert is_signed_in(client)


def test_a_provider_that_fails_while_a_person_signs_in_is_said(
    client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    for path, answer in ((TOKEN, (500, b"oops")), (TOKEN, (200, b"[]")), (KEYS, (200, b"no"))):
        provider.answers = {path: answer}
        assert sign_in_at(client, provider).status_code == 503, (path, answer)
    assert not is_signed_in(client)


def test_documents_are_cached_and_a_new_key_is_fetched_once_in_a_while(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signs_in() -> bool:
        browser = app.test_client()
        sign_in_at(browser, provider)
        return is_signed_in(browser)

    assert signs_in()
    assert signs_in()
    assert (provider.count(DISCOVERY), provider.count(KEYS)) == (1, 1)
    provider.key = rsa_key("second")
    assert not signs_in(), "the keys are a moment old"
    assert provider.count(KEYS) == 1
    later = time.monotonic() + portal_provider.KEY_RETRY_INTERVAL
    monkeypatch.setattr("portal.accounts.single_sign_on.provider.time.monotonic", lambda: later)
    assert signs_in()
    assert (provider.count(DISCOVERY), provider.count(KEYS)) == (1, 2)


@pytest.mark.parametrize("secret", [None, "Client~Secret-0815"])
@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic"]])
def test_a_client_has_a_secret_or_only_pkce(
    client: FlaskClient,
    account: str,
    provider: OpenIdProvider,
    change_settings: ChangeSettings,
    secret: str | None,
    methods: list[str] | None,
) -> None:
    provider.secret, provider.metadata["token_endpoint_auth_methods_supported"] = secret, methods
    change_settings(sso_client_secret=SecretStr(secret) if secret else None)
    sign_in_at(client, provider)
    assert is_signed_in(client)


def test_who_cancels_at_the_provider_is_back_at_the_sign_in_page(
    client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    provider.denial = "access_denied"
    assert sign_in_at(client, provider).location == "/sign-in"
    provider.denial = "<script>alert(1)</script>"
    answer = sign_in_at(client, provider)
    assert (answer.status_code, "alert" in answer.text) == (400, False)


def test_an_account_without_a_password_signs_in_and_is_not_asked_for_one(
    app: Flask, client: FlaskClient, account: str, provider: OpenIdProvider
) -> None:
    """As one with a pending invitation has none."""
    with app.app_context():
        sql("UPDATE accounts SET password = ''")
    sign_in_at(client, provider)
    assert "Change password" not in client.get("/account").text
    assert client.get("/account/two-factor").status_code == 200, "the sign-in is recent"
    with client.session_transaction() as cookie:
        cookie["fs_paa"] -= 3600
        del cookie["fs_gexp"]
    answer = client.get("/account/two-factor", follow_redirects=True)
    assert "Sign in again" in answer.text
    assert client.get("/account/password").location == "/account"
    with app.app_context():
        account_service.require_two_factor(True)
    assert "Sign in again" in client.get("/", follow_redirects=True).text, "not from one page to the other for ever"


def test_signing_in_twice_at_once_binds_once(
    app: Flask, account: str, provider: OpenIdProvider, client: FlaskClient
) -> None:
    other = app.test_client()
    locations = [provider.authorize(go(browser)) for browser in (client, other)]
    for browser, location in zip((client, other), locations, strict=True):
        come_back(browser, location)
        assert is_signed_in(browser)
    assert bound_subjects(app) == ["person-1"]


def test_without_the_setting_there_is_no_single_sign_on(client: FlaskClient, account: str) -> None:
    page = client.get("/sign-in").text
    assert "single-sign-on" not in page
    assert client.get(BEGIN).status_code == client.get(f"{BEGIN}/callback").status_code == 404


# Passwords that are off


@pytest.fixture
def only(provider: OpenIdProvider, change_settings: ChangeSettings, account: str, app: Flask) -> None:
    """Passwords are off, and one account is for emergencies."""
    change_settings(sso_only=True)
    make_account(app, "root@pbx.example", system=True)
    with app.app_context():
        root = account_service.find("root@pbx.example")
        assert root is not None
        assert account_service.set_break_glass(root, True) is None


@pytest.mark.usefixtures("only")
def test_passwords_are_rejected_except_those_of_break_glass_accounts(app: Flask, client: FlaskClient) -> None:
    page = client.get("/sign-in").text
    assert "Emergency sign-in" in page
    assert "Forgot your password?" not in page
    right, wrong = (give_password(client, EMAIL, password) for password in (PASSWORD, "wrong wrong wrong"))
    assert right.status_code == wrong.status_code == 200
    assert not is_signed_in(client)
    assert "The email address or the password is incorrect" in right.text
    assert done(app)[-1] == ("somebody", "sign_in_failed", EMAIL)
    give_password(client, "root@pbx.example")
    assert is_signed_in(client)


def test_stay_signed_in_of_a_password_ends_when_passwords_are_off(
    app: Flask, account: str, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    browsers = {email: app.test_client() for email in (EMAIL, "root@pbx.example")}
    make_account(app, "root@pbx.example", system=True)
    for email, browser in browsers.items():
        give_password(browser, email, remember="y")
    with app.app_context():
        sql("UPDATE accounts SET break_glass = true WHERE email LIKE 'root%'")
    change_settings(sso_only=True)
    assert [is_signed_in(browser) for browser in browsers.values()] == [False, True]
    sign_in_at(browsers[EMAIL], provider)
    assert is_signed_in(browsers[EMAIL])
    with app.app_context():
        assert not sql(
            "SELECT FROM account_sessions JOIN accounts a ON a.id = account_id WHERE remembered AND a.email = :e",
            e=EMAIL,
        )


@pytest.mark.usefixtures("only")
def test_who_signed_in_through_the_provider_does_not_change_a_password(
    client: FlaskClient, provider: OpenIdProvider
) -> None:
    sign_in_at(client, provider)
    token = csrf_token(client.get("/account").text)
    assert "Change password" not in client.get("/account").text
    data = {"csrf_token": token, "password": PASSWORD, "new_password": "another long password", "next": "/account"}
    for path in ("/account/password", "/account/confirm"):
        answer = client.post(path, data={**data, "new_password_confirm": data["new_password"]}, follow_redirects=True)
        assert "Sign in again" in answer.text or "You sign in with Acme ID" in answer.text
    with client.session_transaction() as cookie:
        cookie["fs_paa"] -= 3600
        confirmed_at = cookie["fs_paa"]
    client.post("/account/confirm", data=data)
    with client.session_transaction() as cookie:
        assert cookie["fs_paa"] == confirmed_at


@pytest.mark.usefixtures("only")
def test_the_system_page_names_break_glass_accounts_and_warns_of_a_lockout(
    app: Flask, client: FlaskClient, provider: OpenIdProvider
) -> None:
    give_password(client, "root@pbx.example")
    page = client.get("/system/sign-in").text
    assert provider.issuer in page
    assert "http://portal.test/sign-in/single-sign-on/callback" in page
    assert "root@pbx.example</dd>" in page
    warning = "nobody can sign in"
    assert warning not in page
    with app.app_context():
        sql("UPDATE accounts SET break_glass = false")
    assert warning in client.get("/system/sign-in").text
