"""Alerts about the OAuth connection of a mail server, on the overviews of a tenant and of the system."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode
from tests.mail_servers.oauth.conftest import oauth_tenant, token_server
from tests.mail_servers.oauth.test_views import APP, WAYS, sign_in_at
from tests.overview.page_text import page_text
from tests.pages import post as fill_in
from tests.sql import sql
from tests.tenant_fixtures import entered
from tests.token_server import TokenServer

__all__ = ["oauth_tenant", "token_server"]

PAGE = "/tenants/acme.example/overview"
SYSTEM_PAGE = "/system/overview"
LAPSE = "UPDATE oauth_connections SET lapsed_at = now(), lapse_reason = 'Microsoft rejected access: invalid_grant.'"


def test_a_tenant_is_told_to_connect_and_to_sign_in_again(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    page = page_text(admin, PAGE)
    assert "No mailbox is connected yet, so no email is sent. Connect the mailbox" in page
    assert "Email is not being sent" in page
    checklist = admin.get(PAGE).text.partition('class="first-steps"')[2]
    assert checklist.lstrip("> \n").startswith('<li class="to_do next">'), "the mail server is not done"
    assert f'id="step-mail-server" href="{WAYS}"' in checklist
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    page = page_text(admin, PAGE)
    assert "Email is not being sent" not in page
    assert "mailbox" not in page
    assert "Your own server: " in page
    with app.app_context():
        sql(LAPSE)
    page = page_text(admin, PAGE)
    assert "The connection to pbx@acme.example has ended, so no email is sent. Sign in again" in page
    assert "Email is not being sent" in page


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (-1.5, "has expired."),
        (0.5, "expires today."),
        (1.5, "expires tomorrow."),
        (29.5, "expires in 29 days."),
        (31, ""),
    ],
)
def test_a_tenant_is_warned_before_its_secret_expires(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, days: float, text: str
) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    with app.app_context():
        sql("UPDATE oauth_connections SET credential_expires_at = now() + :days * interval '1 day'", days=days)
    page = page_text(admin, PAGE)
    assert f"The secret or the certificate for pbx@acme.example {text}" in page if text else "secret" not in page


def test_the_system_administrator_sees_the_systems_own_connection(
    app: Flask, system: FlaskClient, token_server: TokenServer
) -> None:
    with app.app_context():
        mail_server_service.save(None, entered(2525, auth_mode=AuthMode.OAUTH))
    page = page_text(system, SYSTEM_PAGE)
    assert "No mailbox is connected yet" in page
    assert "Email is not being sent" in page
    at = "/system/mail-server/oauth"
    fill_in(system, at, **APP)
    sign_in_at(system, token_server, at)
    assert "mailbox" not in page_text(system, SYSTEM_PAGE)
    with app.app_context():
        sql(LAPSE)
    assert "The connection to pbx@acme.example has ended, so no email is sent. Sign in again" in page_text(
        system, SYSTEM_PAGE
    )
