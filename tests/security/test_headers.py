"""Headers and content: every answer tells the browser to run nothing but our files, and no page needs more."""

import re
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from io import BytesIO
from itertools import product

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal import create_app
from portal.config import ROOT, Settings
from tests.conftest import close_connections
from tests.pages import csrf_token
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

EVERYWHERE = {
    "Server": "portal",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ON_PAGES = {"Cross-Origin-Opener-Policy": "same-origin"}
INERT = {"application/json", "application/ld+json"}


def directives(answer: TestResponse) -> dict[str, str]:
    """Return the answer's Content-Security-Policy."""
    parts = (each.strip().partition(" ") for each in answer.headers["Content-Security-Policy"].split(";"))
    return {name: sources for name, _, sources in parts}


def assert_guarded(answer: TestResponse) -> None:
    """Assert that the answer has every header, and each of them once."""
    where = f"{answer.request.method} {answer.request.path}: {answer.status}"
    for name, value in EVERYWHERE.items():
        assert answer.headers.getlist(name) == [value], f"{where}: {name}"
    policy = directives(answer)
    assert policy["default-src"] == "'none'", where
    assert policy["frame-ancestors"] == "'none'", where
    assert "unsafe" not in answer.headers["Content-Security-Policy"], where
    assert answer.headers["Referrer-Policy"] in {"same-origin", "no-referrer"}, where
    if policy.keys() != {"default-src", "frame-ancestors"}:  # which is for programs
        assert policy["script-src"] == policy["style-src"] == "'self'", where
        assert "camera=()" in answer.headers["Permissions-Policy"], where
        for name, value in ON_PAGES.items():
            assert answer.headers[name] == value, where


class Content(HTMLParser):
    """Inline scripts, inline styles and file inputs of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        inline = tag == "style" or (tag == "script" and "src" not in given and given.get("type") not in INERT)
        of_code = [name for name in given if name == "style" or name.startswith(("on", "hx-on", "hx-vals:"))]
        leads = [given.get(name) or "" for name in ("href", "src", "action", "formaction", "xlink:href", "hx-get")]
        code = [
            address for address in leads if re.match(r"\s*(javascript|vbscript|data:text):?", address, re.IGNORECASE)
        ]
        uploads = given.get("type") == "file" or "multipart" in (given.get("enctype") or given.get("hx-encoding") or "")
        if tag == "iframe":
            sandbox = given.get("sandbox")
            safe = sandbox is not None and "allow-scripts" not in sandbox and "allow-same-origin" not in sandbox
            inline = inline or not safe
        if inline or of_code or code or uploads:
            self.faults.append(f"<{tag} {given}>")


def walk(app: Flask, domain: str) -> Iterator[str]:
    """Give an address for every route that can be opened."""
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()):
            address = re.sub(r"<[^>]*domain>", domain, rule.rule)
            address = re.sub(r"<path:[^>]*>", "app.css", address)
            address = re.sub(r"<int:[^>]*>", "1", address)
            yield re.sub(r"<[^>]*>", "queue.call_lost", address)


def test_every_route_answers_with_every_header_and_no_inline_code(
    app: Flask, client: FlaskClient, admin: FlaskClient, system: FlaskClient, post: Post, working_tenant: str
) -> None:
    post()
    pages = 0
    for browser in (client, admin, system):
        for address, headers in product(walk(app, working_tenant), ({}, {"HX-Request": "true"})):
            if address.endswith("/preview/html"):  # an email in a frame: see test_templates.py
                continue
            with closing(browser.get(address, headers=headers)) as answer:
                assert_guarded(answer)
                if answer.mimetype == "text/html" and answer.status_code == 200:
                    pages += 1
                    assert not Content(answer.text).faults, address
    assert pages > 20


def test_errors_have_them_too(client: FlaskClient) -> None:
    addresses = "/nothing", "/tenants/%00/x", "/static/nothing.css", "/api/v1/nothing"
    for address, method in product(addresses, ("GET", "POST", "PUT", "TRACE", "OPTIONS")):
        answer = client.open(address, method=method)
        assert answer.status_code < 500, (address, method)
        assert_guarded(answer)


def test_answers_to_programs_have_what_a_program_could_be_tricked_by(client: FlaskClient, post: Post) -> None:
    for answer in (
        client.get("/api/v1/openapi.json"),
        client.post("/api/v1/events"),
        client.post("/api/v1/events", data=b"{}", content_type="application/json"),
        client.get("/healthz"),
        client.get("/provision/guess", headers={"X-Linphone-Provisioning": "1"}),
    ):
        assert_guarded(answer)
    assert directives(client.get("/api/v1/openapi.json")) == {"default-src": "'none'", "frame-ancestors": "'none'"}


def test_an_error_of_ours_and_a_database_that_is_away_have_them(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": "postgresql+psycopg://127.0.0.1:1/portal?connect_timeout=1"})
    app = create_app(nowhere)

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    broken.is_public = True  # type: ignore[attr-defined]
    browser = app.test_client()
    for address, status in (("/broken", 500), ("/provision/guess", 503)):
        answer = browser.get(address)
        assert answer.status_code == status
        assert_guarded(answer)
        assert "ZeroDivision" not in answer.text


def test_behind_tls_browsers_are_told_to_stay_there(settings: Settings, client: FlaskClient) -> None:
    app = create_app(settings.model_copy(update={"portal_url": "https://portal.test"}))
    browser = app.test_client()
    for address in ("/sign-in", "/static/app.css", "/nothing", "/api/v1/openapi.json"):
        with browser.get(address) as secure, client.get(address) as plain:
            assert secure.headers["Strict-Transport-Security"].startswith("max-age=31536000"), address
            assert "Strict-Transport-Security" not in plain.headers
    cookie = browser.get("/sign-in").headers["Set-Cookie"]
    assert all(each in cookie for each in ("Secure", "HttpOnly", "SameSite=Lax"))
    close_connections(app)


def test_no_template_has_code_in_it() -> None:
    for path in ROOT.glob("templates/**/*.html"):
        if "email" not in path.parts:  # emails have inline styles
            assert not Content(path.read_text()).faults, path


def test_our_own_scripts_evaluate_nothing() -> None:
    for path in ROOT.glob("static/*.js"):
        text = path.read_text()
        assert not re.search(r"\beval\(|innerHTML|outerHTML|document\.write|new Function|insertAdjacentHTML", text), (
            path
        )
    assert '"allowEval": false' in (ROOT / "templates/layout.html").read_text()


def test_no_file_is_ever_taken(app: Flask, admin: FlaskClient, system: FlaskClient, key: str, acme: str) -> None:
    tokens = [(browser, csrf_token(browser.get("/account/password").text)) for browser in (admin, system)]
    for rule, (browser, token) in product(app.url_map.iter_rules(), tokens):
        if "POST" not in (rule.methods or ()):
            continue
        address = re.sub(r"<[^>]*domain>", acme, rule.rule).replace("<make>", "portsip")
        address = re.sub(r"<int:[^>]*>", "1", re.sub(r"<(?!int)[^>]*>", "queue.call_lost", address))
        upload = {"csrf_token": token, "recipients": (BytesIO(b"ops@acme.example"), "run.sh")}
        answer = browser.post(address, data=upload, headers={"Authorization": f"Bearer {key}"})
        # Mail programs post the form of RFC 8058, section 3.2, as multipart/form-data. It has no file.
        expected = 400 if rule.endpoint == "email_settings.unsubscribe" else 415
        assert answer.status_code == expected, f"{rule.rule}: {answer.status}"
        assert_guarded(answer)
