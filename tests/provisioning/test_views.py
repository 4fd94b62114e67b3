"""The one-time address, asked by Linphone, by people, by link scanners and by strangers."""

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import md5
from io import BytesIO
from uuid import uuid4

import pytest
import zxingcpp
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from portal.database import enter_scope
from portal.extensions import db, limiter
from portal.provisioning import qr, tokens
from portal.provisioning.lines import Line
from portal.provisioning.tokens import State
from portal.tenants import directory
from tests.provisioning.test_linphone import read
from tests.sql import sql

LINPHONE = {"X-Linphone-Provisioning": "1", "User-Agent": "LinphoneAndroid/6.0"}
LINE = Line.of(username="1001", sip_domain="acme.example", password="open sesame", display_name="Ann Lee")


@pytest.fixture(autouse=True)
def _fresh_limits(app: Flask) -> Iterator[None]:
    yield
    with app.app_context():
        limiter.reset()


@pytest.fixture
def token(app: Flask, acme: str) -> str:
    """An unspent token of Acme."""
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        token = tokens.issue(tenant.id, LINE, datetime.now(UTC) + timedelta(hours=72), uuid4(), "user")
        db.session.commit()
        return token


def state(app: Flask, token: str) -> State:
    """Return what the token is worth now."""
    with app.app_context():
        return tokens.look(token)


def change(app: Flask, statement: str) -> None:
    """Run a statement on the database."""
    with app.app_context():
        sql(statement)


def assert_private(answer: TestResponse) -> None:
    """Neither caches nor search engines nor other sites learn of the address."""
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Robots-Tag"] == "noindex"


def test_linphone_gets_the_line_once(app: Flask, client: FlaskClient, token: str) -> None:
    answer = client.get(f"/provision/{token}", headers=LINPHONE)
    assert (answer.status_code, answer.mimetype) == (200, "application/xml")
    assert_private(answer)
    assert "Set-Cookie" not in answer.headers
    authentication = read(answer.data)["auth_info_0"]
    assert authentication["ha1"] == md5(b"1001:acme.example:open sesame").hexdigest()
    assert state(app, token) is State.SPENT

    again = client.get(f"/provision/{token}", headers=LINPHONE)
    assert (again.status_code, again.mimetype) == (410, "text/plain")
    assert_private(again)


def test_the_qr_code_leads_linphone_to_its_document(app: Flask, client: FlaskClient, token: str) -> None:
    with app.app_context():
        picture = qr.png(qr.address(token))
    [code] = zxingcpp.read_barcodes(Image.open(BytesIO(picture)))
    answer = client.get(code.text, headers=LINPHONE)
    assert answer.status_code == 200
    assert ET.fromstring(answer.data) is not None


def test_people_get_a_page_that_spends_nothing_and_tells_nothing(app: Flask, client: FlaskClient, token: str) -> None:
    for _ in range(3):
        answer = client.get(f"/provision/{token}", headers={"User-Agent": "Mozilla/5.0"})
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        assert_private(answer)
        page = answer.get_data(as_text=True)
        assert f'href="linphone-config:http://portal.test/provision/{token}"' in page
        for part in ("1001", "acme", "Ann Lee", LINE.ha1 or ""):
            assert part not in page.replace(token, "")
    assert state(app, token) is State.UNSPENT


def test_the_pages_qr_code_holds_the_pages_address(client: FlaskClient, token: str) -> None:
    page = client.get(f"/provision/{token}").get_data(as_text=True)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found
    [code] = zxingcpp.read_barcodes(Image.open(BytesIO(base64.b64decode(found[1]))))
    assert code.text == f"http://portal.test/provision/{token}"


@pytest.mark.parametrize("headers", [{}, LINPHONE])
def test_head_spends_nothing(app: Flask, client: FlaskClient, token: str, headers: dict[str, str]) -> None:
    answer = client.head(f"/provision/{token}", headers=headers)
    assert (answer.status_code, answer.data) == (200, b"")
    assert_private(answer)
    assert state(app, token) is State.UNSPENT


def test_an_empty_header_is_linphones_too(client: FlaskClient, token: str) -> None:
    assert client.get(f"/provision/{token}", headers={"X-Linphone-Provisioning": ""}).mimetype == "application/xml"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_but_reading_is_allowed(app: Flask, client: FlaskClient, token: str, method: str) -> None:
    assert client.open(f"/provision/{token}", method=method, headers=LINPHONE).status_code in {400, 405}
    assert state(app, token) is State.UNSPENT


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE provisioning_tokens SET spent_at = now(), line_encrypted = NULL", "already used"),
        ("UPDATE provisioning_tokens SET expires_at = now()", "has expired"),
        ("UPDATE tenants SET suspended_at = now()", "suspended"),
    ],
)
def test_what_is_gone_says_why_to_people_and_410_to_linphone(
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


def test_a_stranger_finds_nothing(client: FlaskClient, token: str) -> None:
    page = client.get(f"/provision/{token}x")
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert_private(page)
    answer = client.get(f"/provision/{token}x", headers=LINPHONE)
    assert (answer.status_code, answer.mimetype) == (404, "text/plain")


def test_the_address_in_a_sample_says_that_it_is_one(client: FlaskClient) -> None:
    page = client.get("/provision/sample")
    assert (page.status_code, "This address is a sample" in page.text) == (200, True)
    assert client.get("/provision/sample", headers=LINPHONE).status_code == 404


def test_other_pages_keep_their_own_headers(client: FlaskClient) -> None:
    answer = client.get("/sign-in")
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "X-Robots-Tag" not in answer.headers


def test_one_address_cannot_ask_without_end(app: Flask, client: FlaskClient, token: str) -> None:
    codes = [client.get("/provision/guess", headers=LINPHONE).status_code for _ in range(121)]
    assert codes == [404] * 120 + [429]
    elsewhere = client.get(f"/provision/{token}", headers=LINPHONE, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert elsewhere.status_code == 200
