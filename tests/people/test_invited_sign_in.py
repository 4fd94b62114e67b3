"""Invited people who begin with single sign-on instead of a password."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.models import VIEWER
from portal.people import members
from tests.accounts.single_sign_on.conftest import ChangeSettings, change_settings, provider, sign_in_at
from tests.authenticator import is_signed_in
from tests.conftest import make_account
from tests.openid_provider import OpenIdProvider
from tests.pages import csrf_token
from tests.people.example_people import NEW, account_with, invite, role_of, tenant_with, within

__all__ = ["change_settings", "provider"]

INVITED, INVITER = "admin@acme.example", "first@acme.example"  # the first is the person at the provider


@pytest.fixture
def link(app: Flask, acme: str) -> str:
    make_account(app, INVITER, administers=acme)
    return invite(app, acme, INVITED, VIEWER, INVITER)


def test_the_first_sign_in_accepts_the_invitation(
    app: Flask, client: FlaskClient, acme: str, link: str, provider: OpenIdProvider
) -> None:
    assert "Sign in with Acme ID" in client.get(link).text
    sign_in_at(client, provider)
    assert is_signed_in(client)
    assert role_of(app, INVITED, acme) == VIEWER
    assert client.get(link).status_code == 404


def test_an_invitation_that_ended_with_its_inviter_gives_no_access(
    app: Flask, client: FlaskClient, acme: str, link: str, provider: OpenIdProvider
) -> None:
    with app.app_context():
        assert members.remove(account_with(INVITER), tenant_with(acme).id, by=None) is None
    assert client.get(link).status_code == 404
    assert sign_in_at(client, provider).status_code == 403


def test_later_sign_ins_accept_nothing_unasked(
    app: Flask, client: FlaskClient, acme: str, globex: str, link: str, provider: OpenIdProvider
) -> None:
    sign_in_at(client, provider)
    make_account(app, "first@globex.example", administers=globex)
    second = invite(app, globex, INVITED, VIEWER, "first@globex.example")
    sign_in_at(app.test_client(), provider)
    assert role_of(app, INVITED, globex) is None
    page = app.test_client().get(second).text
    assert 'name="password"' not in page, "the account is in use, without a password"


def test_the_password_of_an_existing_account_is_no_reason_to_accept(
    app: Flask, client: FlaskClient, acme: str, globex: str, provider: OpenIdProvider
) -> None:
    make_account(app, INVITED, administers=acme)
    make_account(app, "first@globex.example", administers=globex)
    invite(app, globex, INVITED, VIEWER, "first@globex.example")
    sign_in_at(client, provider)
    assert role_of(app, INVITED, globex) is None


def test_where_passwords_are_off_the_invitation_sets_none(
    app: Flask, client: FlaskClient, link: str, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    change_settings(sso_only=True)
    page = client.get(link).text
    assert 'name="password"' not in page
    assert "Sign in with Acme ID to accept the invitation." in page
    token = csrf_token(client.get("/sign-in").text)
    assert client.post(link, data={"csrf_token": token, **NEW}).status_code == 200
    assert within(app, lambda: account_with(INVITED).password) is None
