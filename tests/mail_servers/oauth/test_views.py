"""Connecting a mailbox in the browser: the ways, what the page shows in each state, and what goes wrong."""

import datetime
import json
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from portal.crypto import Keyring
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.client import AuthMode
from tests.pages import csrf_token
from tests.pages import post as fill_in
from tests.sql import sql
from tests.tenant_fixtures import entered
from tests.token_server import CLIENT_ID, CLIENT_SECRET, DIRECTORY, MAILBOX, Denied, TokenServer

APP: dict[str, Any] = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "directory": DIRECTORY}
PAGE = "/tenants/acme.example/mail-server"
WAYS = f"{PAGE}/oauth"


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def go_to_provider(browser: FlaskClient, at: str = WAYS) -> dict[str, str]:
    """Follow "Sign in" and return what the provider is asked."""
    answer = browser.get(f"{at}/sign-in")
    assert answer.status_code == 303
    return query_of(answer.headers["Location"])


def come_back(browser: FlaskClient, url: str) -> TestResponse:
    """Follow the provider's redirect, and then the portal's."""
    parts = urlsplit(url)
    return browser.get(f"{parts.path}?{parts.query}", follow_redirects=True)


def sign_in_at(browser: FlaskClient, server: TokenServer, at: str = WAYS) -> str:
    """Sign in at the provider, and return the page at which that ends."""
    return come_back(browser, server.authorize(go_to_provider(browser, at))).text


def stored(app: Flask, owner: int | None) -> OAuthConnection | None:
    with app.app_context():
        return mail_server_service.get_connection(owner)


def test_a_mailbox_is_connected_with_an_app_of_the_tenants_own(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    assert "No mailbox is connected yet" in admin.get(PAGE).text
    page = admin.get(WAYS).text
    assert ">http://portal.test/oauth/callback<" in page
    assert "SMTP.Send" in page
    assert fill_in(admin, WAYS, **APP).headers["Location"] == WAYS
    assert "Now sign in" in admin.get(WAYS).text
    consent = re.search(r'href="([^"]+)">Consent for the organisation', admin.get(WAYS).text)
    assert consent is not None
    assert unescape(consent[1]).startswith(f"{token_server.url}/{DIRECTORY}/v2.0/adminconsent?client_id={CLIENT_ID}&")
    assert "Now sign in." in come_back(admin, "/oauth/callback?admin_consent=True&tenant=x").text
    asked = go_to_provider(admin)
    assert asked["scope"] == "https://outlook.office.com/SMTP.Send offline_access openid profile"
    assert asked["code_challenge_method"] == "S256"
    assert "Connected to Microsoft as pbx@acme.example" in sign_in_at(admin, token_server)
    assert "Connected to Microsoft" in admin.get(WAYS).text
    with app.app_context():
        server = mail_server_service.get_server(oauth_tenant)
        assert server is not None
        assert server.username == MAILBOX
        source = server.smtp_settings.token_source
        assert source is not None
        assert source.access_token() in token_server.access_tokens


def test_the_operators_app_needs_nothing_but_a_sign_in(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_operator_app(app, monkeypatch)
    assert "Sign in with Microsoft" in admin.get(PAGE).text
    assert "Connected to Microsoft as" in sign_in_at(admin, token_server)
    connection = stored(app, oauth_tenant)
    assert connection is not None
    assert (connection.client_id, connection.client_secret_encrypted) == (None, None)
    assert CLIENT_SECRET not in admin.get(WAYS).text
    assert any(path.startswith("/organizations/") for path, _ in token_server.requests)


def use_operator_app(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"microsoft_client_id": CLIENT_ID, "microsoft_client_secret": SecretStr(CLIENT_SECRET)}
    monkeypatch.setitem(app.extensions, "settings", app.extensions["settings"].model_copy(update=values))


def test_another_account_signs_in_later(admin: FlaskClient, oauth_tenant: int, token_server: TokenServer) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    token_server.account = "second@acme.example"
    assert "Connected to Microsoft as second@acme.example" in sign_in_at(admin, token_server)
    assert 'value="second@acme.example"' in admin.get(PAGE).text


@pytest.mark.parametrize(
    ("error", "description", "text"),
    [
        ("access_denied", "AADSTS65004: The user declined", "has to consent"),
        ("access_denied", "", "Somebody declined"),
        ("server_error", "AADSTS90033", "try again in a minute"),
    ],
)
def test_a_sign_in_that_fails_says_why(
    admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, error: str, description: str, text: str
) -> None:
    fill_in(admin, WAYS, **APP)
    token_server.denial = Denied(error, description)
    page = sign_in_at(admin, token_server)
    assert text in page
    assert error in page
    assert "No mailbox is connected yet" in page


def test_codes_cannot_be_guessed_with_a_kept_cookie(
    admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    fill_in(admin, WAYS, **APP)
    state, cookie = go_to_provider(admin)["state"], admin.get_cookie("session")
    assert cookie is not None
    statuses = []
    for number in range(14):
        admin.set_cookie("session", cookie.value)
        statuses.append(admin.get(f"/oauth/callback?state={state}&code={number}").status_code)
    assert statuses[0] == 303
    assert statuses[-1] == 429
    assert len(token_server.token_requests) <= 10


def test_a_sign_in_without_lasting_access_is_not_stored(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    fill_in(admin, WAYS, **APP)
    token_server.grants_refresh_token = False
    assert "for an hour only" in sign_in_at(admin, token_server)
    connection = stored(app, oauth_tenant)
    assert connection is not None
    assert connection.connected_at is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": ""}, "Enter the client ID."),
        ({"client_id": "\r"}, "Enter the client ID."),
        ({"client_secret": ""}, "Enter the client secret."),
        ({"directory": "evil.example/../common?"}, "Enter the directory"),
        ({"directory": "common"}, "Enter the directory"),
        ({"expires_on": "soon"}, "Enter a date"),
    ],
)
def test_an_app_that_is_not_complete_is_rejected(
    app: Flask, admin: FlaskClient, oauth_tenant: int, changes: dict[str, Any], text: str
) -> None:
    answer = fill_in(admin, WAYS, **{**APP, **changes})
    assert (answer.status_code, stored(app, oauth_tenant)) == (422, None)
    assert text in answer.text
    assert CLIENT_SECRET not in answer.text


def certificate(end: datetime.datetime | None = None) -> tuple[x509.Certificate, str]:
    """Return a certificate that is valid for 20 days, or until then, and the text that is pasted."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "portal")])
    now = datetime.datetime.now(datetime.UTC)
    end = end or now + datetime.timedelta(days=20.5)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, end).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return made, made.public_bytes(Encoding.PEM).decode() + key_pem


def test_an_app_with_a_certificate_needs_no_person(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    token_server.certificate, pasted = certificate()
    way = f"{WAYS}?way=client_credentials"
    values: dict[str, Any] = {"client_id": CLIENT_ID, "directory": DIRECTORY, "mailbox": MAILBOX}
    assert "SMTP.SendAsApp" in admin.get(way).text
    assert "Enter the client secret or the certificate." in fill_in(admin, way, **values).text
    wrong = pasted[: pasted.index("-----BEGIN PRIVATE KEY")] + certificate()[1].partition("-----BEGIN PRIVATE KEY")[2]
    assert "in PEM format" in fill_in(admin, way, **values, secret_certificate=wrong).text
    answer = fill_in(admin, way, **values, secret_certificate=pasted)
    assert answer.status_code == 303, answer.text
    page = admin.get(PAGE).text
    assert "Connected to Microsoft as pbx@acme.example" in page
    assert "expires in 20 days" in page
    assert "PRIVATE KEY" not in admin.get(way).text
    assert "PRIVATE KEY" not in str(sql_rows(app))


def test_the_audit_trail_shows_a_certificate_without_an_end(
    admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    token_server.certificate, pasted = certificate(datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
    values: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "directory": DIRECTORY,
        "mailbox": MAILBOX,
        "secret_certificate": pasted,
    }
    assert fill_in(admin, f"{WAYS}?way=client_credentials", **values).status_code == 303
    assert "31 Dec 9999" in admin.get("/tenants/acme.example/audit").text


def sql_rows(app: Flask) -> Any:
    with app.app_context():
        return sql("SELECT t::text FROM oauth_connections AS t")


def test_a_service_account_needs_no_person(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET host = 'localhost'")
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    token_server.service_account_key = public.decode()
    pasted = {
        "type": "service_account",
        "client_email": "portal@project.iam.gserviceaccount.com",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "token_uri": "https://thief.example/token",
    }
    way = f"{WAYS}?way=service_account"
    assert "Domain-wide delegation" in admin.get(way).text
    other = fill_in(admin, way, mailbox="boss@acme.example", secret_key_file=json.dumps(pasted))
    assert "Domain-wide delegation is missing" in other.text
    assert fill_in(admin, way, mailbox=MAILBOX, secret_key_file=json.dumps(pasted)).status_code == 303
    assert "Connected to Google as pbx@acme.example" in admin.get(PAGE).text
    assert "Paste the key file." in fill_in(admin, way, mailbox=MAILBOX, secret_key_file=" \r\n").text
    assert "Enter the email address" in fill_in(admin, way, mailbox="\r", secret_key_file=json.dumps(pasted)).text
    for broken in (
        "{}",
        "no",
        "[" * 19_000,
        json.dumps({**pasted, "private_key": "no"}),
        json.dumps({**pasted, "client_email": 1}),
    ):
        assert fill_in(admin, way, mailbox=MAILBOX, secret_key_file=broken).status_code == 422


def test_a_lapsed_connection_is_shown_with_the_remedy(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    with app.app_context():
        sql(
            "UPDATE oauth_connections SET lapsed_at = now(), "
            "lapse_reason = 'Microsoft rejected access: invalid_grant (AADSTS50173).'"
        )
    for at in (PAGE, WAYS):
        page = admin.get(at).text
        assert "has ended" in page
        assert "AADSTS50173" in page
        assert "password was changed" in page
        assert "Sign in again" in page
    assert "Connected to Microsoft" in sign_in_at(admin, token_server)


@pytest.mark.parametrize(
    ("days", "text"), [(-2, "has expired"), (0.5, "expires today"), (6.5, "expires in 6 days"), (40, "")]
)
def test_an_expiring_secret_is_announced(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, days: float, text: str
) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    with app.app_context():
        sql("UPDATE oauth_connections SET credential_expires_at = now() + :days * interval '1 day'", days=days)
    page = admin.get(PAGE).text
    assert "Connected to Microsoft" in page
    assert text in page
    assert ("secret or the certificate" in page) is bool(text)


def test_the_page_is_usable_without_the_encryption_key(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    monkeypatch.setitem(app.extensions, "keyring", Keyring({"other": b"o" * 32}))
    for at in (PAGE, WAYS, f"{WAYS}?way=client_credentials"):
        assert "Connected to Microsoft" in admin.get(at).text
    assert "Enter the client secret." in fill_in(admin, WAYS, **{**APP, "client_secret": ""}).text
    assert "AADSTS7000215" in sign_in_at(admin, token_server)
    assert fill_in(admin, WAYS, **APP).status_code == 303
    assert "Connected to Microsoft" in sign_in_at(admin, token_server)


def test_a_mailbox_is_disconnected(
    app: Flask, admin: FlaskClient, oauth_tenant: int, token_server: TokenServer
) -> None:
    fill_in(admin, WAYS, **APP)
    sign_in_at(admin, token_server)
    token = csrf_token(admin.get(PAGE).text)
    answer = admin.post(f"{WAYS}/disconnect", data={"csrf_token": token}, follow_redirects=True)
    assert "No mailbox is connected yet" in answer.text
    assert stored(app, oauth_tenant) is None
    answer = fill_in(admin, PAGE, f"{WAYS}/disconnect", htmx=True)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, PAGE)


def test_without_oauth_there_is_nothing_to_connect(admin: FlaskClient, acme: str) -> None:
    assert "Connected" not in admin.get(PAGE).text
    assert admin.get(WAYS).headers["Location"].endswith(PAGE)
    assert admin.get(f"{WAYS}/sign-in").headers["Location"].endswith(PAGE)


def test_the_system_connects_its_own_mailbox(app: Flask, system: FlaskClient, token_server: TokenServer) -> None:
    with app.app_context():
        mail_server_service.save(None, entered(2525, auth_mode=AuthMode.OAUTH))
    at = "/system/mail-server/oauth"
    assert "No mailbox is connected yet" in system.get("/system/mail-server").text
    fill_in(system, at, **APP)
    assert "Connected to Microsoft as pbx@acme.example" in sign_in_at(system, token_server, at)
    assert stored(app, None) is not None


@pytest.mark.parametrize(
    ("authority", "scope"),
    [
        ("https://login.microsoftonline.us", "https://outlook.office365.us/SMTP.Send offline_access openid profile"),
        (
            "https://login.partner.microsoftonline.cn",
            "https://partner.outlook.cn/SMTP.Send offline_access openid profile",
        ),
    ],
)
def test_a_national_cloud_has_a_scope_of_its_own(
    app: Flask, admin: FlaskClient, oauth_tenant: int, monkeypatch: pytest.MonkeyPatch, authority: str, scope: str
) -> None:
    fill_in(admin, WAYS, **APP)
    settings = app.extensions["settings"].model_copy(update={"microsoft_authority": authority})
    monkeypatch.setitem(app.extensions, "settings", settings)
    answer = admin.get(f"{WAYS}/sign-in")
    assert answer.headers["Location"].startswith(f"{authority}/{DIRECTORY}/oauth2/v2.0/authorize?")
    assert query_of(answer.headers["Location"])["scope"] == scope
