"""The one-time link, requested by Linphone, people, link scanners and strangers."""

import base64
import re
import xml.etree.ElementTree as ET
from datetime import timedelta
from hashlib import md5
from io import BytesIO

import pytest
import zxingcpp
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from portal.provisioning import qr, tokens
from portal.provisioning.tokens import TokenState
from portal.tenants import service as tenant_service
from tests.provisioning.example_account import issue_token, sip_account
from tests.provisioning.test_linphone import read
from tests.sql import sql

LINPHONE = {"X-Linphone-Provisioning": "1", "User-Agent": "LinphoneAndroid/6.0"}
LINE = sip_account(display_name="Ann Lee")


@pytest.fixture
def token(app: Flask, acme: str) -> str:
    """An unspent token of Acme."""
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        return issue_token(tenant.id, LINE, timedelta(hours=72))


def state(app: Flask, token: str) -> TokenState:
    """Return what the token is worth now."""
    with app.app_context():
        return tokens.check(token)[0]


def change(app: Flask, statement: str) -> None:
    """Run a statement on the database."""
    with app.app_context():
        sql(statement)


def assert_private(answer: TestResponse) -> None:
    """Neither caches nor search engines nor other sites learn of the address."""
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Robots-Tag"] == "noindex"


def test_linphone_gets_the_account_once(app: Flask, client: FlaskClient, token: str) -> None:
    answer = client.get(f"/provision/{token}", headers=LINPHONE)
    assert (answer.status_code, answer.mimetype) == (200, "application/xml")
    assert_private(answer)
    assert "Set-Cookie" not in answer.headers
    authentication = read(answer.data)["auth_info_0"]
    assert authentication["ha1"] == md5(b"1001:acme.example:open sesame").hexdigest()
    assert state(app, token) is TokenState.SPENT

    again = client.get(f"/provision/{token}", headers=LINPHONE)
    assert (again.status_code, again.mimetype) == (410, "text/plain")
    assert_private(again)


def test_the_page_names_the_company_and_where_to_install_linphone(app: Flask, client: FlaskClient, token: str) -> None:
    change(
        app, "UPDATE tenants SET sender_name = 'Acme <Phones>', brand_color = '#ff0000', reply_to = 'it@acme.example'"
    )
    page = client.get(f"/provision/{token}").text
    assert "Acme &lt;Phones&gt;</p>" in page
    assert 'fill="#ff0000"' in page
    assert '<a href="mailto:it@acme.example">' in page
    assert "https://play.google.com/store/apps/details?id=org.linphone" in page
    assert "https://apps.apple.com/app/linphone/id360065638" in page
    change(app, "UPDATE provisioning_tokens SET expires_at = now()")
    gone = client.get(f"/provision/{token}").text
    assert "This link has expired" in gone
    assert "Acme &lt;Phones&gt;</p>" in gone
    assert "it@acme.example" in gone
    assert "it@acme.example" not in client.get("/provision/sample").text


def test_the_qr_code_leads_linphone_to_its_document(app: Flask, client: FlaskClient, token: str) -> None:
    with app.app_context():
        picture = qr.qr_code_png(qr.provisioning_url(token))
    [code] = zxingcpp.read_barcodes(Image.open(BytesIO(picture)))
    answer = client.get(code.text, headers=LINPHONE)
    assert answer.status_code == 200
    assert ET.fromstring(answer.data) is not None


def test_people_get_a_page_without_secrets_and_the_token_stays_unspent(
    app: Flask, client: FlaskClient, token: str
) -> None:
    for _ in range(3):
        answer = client.get(f"/provision/{token}", headers={"User-Agent": "Mozilla/5.0"})
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        assert_private(answer)
        page = answer.get_data(as_text=True)
        assert f'href="linphone-config:http://portal.test/provision/{token}"' in page
        for part in ("1001", "acme", "Ann Lee", LINE.ha1 or ""):
            assert part not in page.replace(token, "")
    assert state(app, token) is TokenState.UNSPENT


@pytest.mark.parametrize(
    "user_agent", ["Unknown", "Linphone/5.2.0", "LinphoneAndroid/5.0.1 (Pixel)", "linphonec/5.1.65"]
)
def test_an_older_linphone_gets_the_account_too(app: Flask, client: FlaskClient, token: str, user_agent: str) -> None:
    """As recorded from Linphone 5.1.65: a User-Agent, and neither a header of its own nor Accept."""
    answer = client.get(f"/provision/{token}", headers={"User-Agent": user_agent})
    assert (answer.status_code, answer.mimetype) == (200, "application/xml")
    assert state(app, token) is TokenState.SPENT


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"User-Agent": ""},
        {"User-Agent": "Unknown", "Accept": "*/*"},
        {"User-Agent": "Unknown", "Accept": "text/html"},
        {"User-Agent": "curl/8.5.0", "Accept": "*/*"},
        {"User-Agent": "python-requests/2.32"},
        {"User-Agent": "Mozilla/5.0 (compatible; BingPreview/1.0b)"},
        {"User-Agent": "Mozilla/5.0 Linphone/5.0"},
        {"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
        {"User-Agent": "WhatsApp/2.23", "Accept": "*/*"},
    ],
)
def test_browsers_and_link_scanners_do_not_spend_a_token(
    app: Flask, client: FlaskClient, token: str, headers: dict[str, str]
) -> None:
    answer = client.get(f"/provision/{token}", headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert "If Linphone reports an error" in answer.text
    assert state(app, token) is TokenState.UNSPENT


def test_the_pages_qr_code_contains_the_pages_url(client: FlaskClient, token: str) -> None:
    page = client.get(f"/provision/{token}").get_data(as_text=True)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found
    [code] = zxingcpp.read_barcodes(Image.open(BytesIO(base64.b64decode(found[1]))))
    assert code.text == f"http://portal.test/provision/{token}"


@pytest.mark.parametrize("headers", [{}, LINPHONE])
def test_head_does_not_spend_a_token(app: Flask, client: FlaskClient, token: str, headers: dict[str, str]) -> None:
    answer = client.head(f"/provision/{token}", headers=headers)
    assert (answer.status_code, answer.data) == (200, b"")
    assert_private(answer)
    assert state(app, token) is TokenState.UNSPENT


def test_an_empty_header_is_linphones_too(client: FlaskClient, token: str) -> None:
    assert client.get(f"/provision/{token}", headers={"X-Linphone-Provisioning": ""}).mimetype == "application/xml"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_rejected(app: Flask, client: FlaskClient, token: str, method: str) -> None:
    assert client.open(f"/provision/{token}", method=method, headers=LINPHONE).status_code in {400, 405}
    assert state(app, token) is TokenState.UNSPENT


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE provisioning_tokens SET spent_at = now(), sip_account_encrypted = NULL", "already been used"),
        ("UPDATE provisioning_tokens SET expires_at = now()", "has expired"),
        ("UPDATE tenants SET suspended_at = now()", "suspended"),
    ],
)
def test_people_see_why_a_link_is_gone_and_linphone_gets_410(
    app: Flask, client: FlaskClient, token: str, statement: str, words: str
) -> None:
    change(app, statement)
    page = client.get(f"/provision/{token}")
    assert (page.status_code, page.mimetype) == (410, "text/html")
    assert words in page.get_data(as_text=True)
    assert "linphone-config:" not in page.get_data(as_text=True)
    assert_private(page)
    answer = client.get(f"/provision/{token}", headers=LINPHONE)
    assert (answer.status_code, answer.mimetype) == (410, "text/plain")
    assert client.head(f"/provision/{token}").status_code == 410


def test_unknown_tokens_are_not_found(client: FlaskClient, token: str) -> None:
    page = client.get(f"/provision/{token}x")
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert_private(page)
    answer = client.get(f"/provision/{token}x", headers=LINPHONE)
    assert (answer.status_code, answer.mimetype) == (404, "text/plain")


def test_the_link_of_a_sample_says_that_it_is_a_sample(client: FlaskClient) -> None:
    page = client.get("/provision/sample")
    assert (page.status_code, "This link is a sample" in page.text) == (200, True)
    assert client.get("/provision/sample", headers=LINPHONE).status_code == 404


def test_other_pages_keep_their_own_headers(client: FlaskClient) -> None:
    answer = client.get("/sign-in")
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "X-Robots-Tag" not in answer.headers


def test_requests_are_limited_by_ip_address(app: Flask, client: FlaskClient, token: str) -> None:
    def guess() -> int:
        return client.get("/provision/guess", headers=LINPHONE).status_code

    assert [guess() for _ in range(120)] == [404] * 120
    assert next(status for _ in range(60) if (status := guess()) != 404) == 429, "one more is free every half second"
    elsewhere = client.get(f"/provision/{token}", headers=LINPHONE, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert elsewhere.status_code == 200
