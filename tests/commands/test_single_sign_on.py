"""The commands about single sign-on, and the report when the portal starts."""

import logging

import pytest
from flask import Flask

from portal.accounts import service as account_service
from portal.commands import single_sign_on
from tests.accounts.single_sign_on.conftest import ChangeSettings, change_settings, provider, sign_in_at
from tests.accounts.test_sign_in_audit import done
from tests.audit.test_log import entries
from tests.authenticator import is_signed_in
from tests.conftest import make_account
from tests.openid_provider import DISCOVERY, OpenIdProvider
from tests.sql import sql

__all__ = ["change_settings", "provider"]

EMAIL = "root@pbx.example"


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    """Run a command and return its exit status and output."""
    result = app.test_cli_runner().invoke(args=["single-sign-on", *arguments])
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def account(app: Flask) -> None:
    make_account(app, EMAIL, system=True)


def test_check_says_what_keeps_people_from_signing_in(
    app: Flask, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    status, said = run(app, "check")
    assert (status, "The provider responds." in said) == (0, True)
    assert "Redirect URI: http://portal.test/sign-in/single-sign-on/callback" in said
    change_settings(sso_only=True)
    status, said = run(app, "check")
    assert (status, "when the provider fails, nobody can sign in" in said) == (1, True)
    assert run(app, "break-glass", EMAIL, "on") == (0, f"{EMAIL} is now a break-glass account.\n")
    status, said = run(app, "check")
    assert (status, f"Break-glass account: {EMAIL}" in said) == (0, True)


def test_a_portal_that_nobody_can_enter_says_so_when_it_starts(
    app: Flask, provider: OpenIdProvider, change_settings: ChangeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    change_settings(sso_only=True)
    provider.answers[DISCOVERY] = (503, b"")
    single_sign_on.report_problems(app)
    assert "The provider does not work." in caplog.text
    assert "there is no break-glass account: nobody can sign in." in caplog.text
    caplog.clear()
    change_settings(sso_issuer=None, sso_only=False)
    single_sign_on.report_problems(app)
    assert not caplog.records


def test_break_glass_accounts_have_a_password_and_one_of_them_stays(
    app: Flask, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    change_settings(sso_only=True)
    with app.app_context():
        sql("UPDATE accounts SET password = ''")
    assert "needs a password" in run(app, "break-glass", EMAIL, "on")[1]
    make_account(app, "second@pbx.example", system=True)
    run(app, "break-glass", "second@pbx.example", "on")
    assert "last break-glass account" in run(app, "break-glass", "second@pbx.example", "off")[1]
    change_settings(sso_only=False)
    assert run(app, "break-glass", "second@pbx.example", "off")[0] == 0
    with app.app_context():
        assert [each.changes["break_glass"] for each in entries() if "break_glass" in each.changes] == [
            [False, True],
            [True, False],
        ]
        assert not account_service.break_glass_accounts()


def test_a_binding_is_forgotten(app: Flask, provider: OpenIdProvider) -> None:
    provider.email = EMAIL
    browser = app.test_client()
    sign_in_at(browser, provider)
    assert is_signed_in(browser)
    provider.subject = "person-2"
    assert sign_in_at(app.test_client(), provider).status_code == 403
    assert run(app, "forget", EMAIL)[0] == 0
    assert [action for _, action, _ in done(app)][-1] == "unbound"
    assert sign_in_at(app.test_client(), provider).status_code == 302


def test_without_a_provider_there_is_nothing_to_check(app: Flask) -> None:
    assert run(app, "check") == (1, "Error: SSO_ISSUER is not set: there is no single sign-on.\n")
