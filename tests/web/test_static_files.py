"""What a first visit loads: little, compressed, from us alone, and nothing of it twice."""

import gzip
import hashlib
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.config import ROOT
from portal.web import static_files

LARGEST_FIRST_VISIT = 80_000  # bytes
GZIP = {"Accept-Encoding": "gzip, deflate, br"}


def loaded(page: str) -> set[str]:
    """Return the addresses of the files that a browser loads with the page."""
    found = re.findall(r'<(?:link|script|img|use)\b[^>]*(?:href|src)="([^"]+)"', page)
    return {address.partition("#")[0] for address in found}


def fetch(browser: FlaskClient, address: str, **headers: str) -> TestResponse:
    answer = browser.get(address, headers={**GZIP, **headers})
    answer.get_data()
    answer.close()
    return answer


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/mail-server"


def test_a_first_visit_is_small(admin: FlaskClient, page: str) -> None:
    html = fetch(admin, page).data
    files = loaded(gzip.decompress(html).decode())
    assert all(each.startswith(("/static/", "/bootstrap/static/")) for each in files)
    assert len(html) + sum(len(fetch(admin, each).data) for each in files) < LARGEST_FIRST_VISIT


def test_what_a_page_loads_is_kept_by_everybody(admin: FlaskClient, page: str) -> None:
    files = loaded(admin.get(page).text)
    assert len(files) >= 6
    for address in files:
        answer = fetch(admin, address)
        assert answer.status_code == 200, address
        assert answer.headers["Cache-Control"] == f"public, max-age={static_files.YEAR}, immutable"
        assert "Cookie" not in answer.headers.get("Vary", "")
        assert "Set-Cookie" not in answer.headers
        assert "Content-Security-Policy" in answer.headers


def test_a_page_is_kept_by_nobody_else(admin: FlaskClient, page: str) -> None:
    answer = fetch(admin, page)
    assert "Cookie" in answer.headers["Vary"]
    assert not answer.cache_control.public


@pytest.mark.parametrize("name", ["/static/app", "/bootstrap/static/css/bootstrap.min"])
def test_only_the_name_of_the_very_content_is_kept(client: FlaskClient, name: str) -> None:
    named = re.search(rf'"({name}\.[0-9a-f]{{12}}\.css)"', client.get("/sign-in").text)
    assert named
    content = fetch(client, named[1]).data
    for other in (f"{name}.css", f"{name}.{'0' * 12}.css"):
        answer = fetch(client, other)
        assert answer.data == content
        assert answer.headers["Cache-Control"] == "no-cache"


def test_a_changed_file_gets_another_name(built_app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(built_app, "static_folder", str(tmp_path))
    with built_app.test_request_context():
        names = []
        for content in ("a", "bb"):
            (tmp_path / "x.css").write_text(content)
            names.append(built_app.url_for("static", filename="x.css"))
    assert names[0] != names[1]


@pytest.mark.parametrize("path", ["/static/../wsgi.{}.py", "/static/nothing.{}.css"])
def test_a_name_that_leads_nowhere_is_not_kept(client: FlaskClient, path: str) -> None:
    digest = hashlib.sha256((ROOT / "wsgi.py").read_bytes()).hexdigest()[: static_files.HASH_LENGTH]
    answer = client.get(path.format(digest))
    assert answer.status_code == 404
    assert not answer.cache_control.immutable


@pytest.mark.parametrize("address", ["/sign-in", "/static/app.css"])
def test_who_asks_for_no_compression_gets_none(client: FlaskClient, address: str) -> None:
    zipped = fetch(client, address)
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in zipped.vary
    for asked in ("", "br", "gzip;q=0"):
        plain = fetch(client, address, **{"Accept-Encoding": asked})
        assert "Content-Encoding" not in plain.headers
        assert "Accept-Encoding" in plain.vary
        assert plain.data[:50] == gzip.decompress(zipped.data)[:50]


def test_a_compressed_file_is_not_sent_again_while_it_is_the_same(client: FlaskClient) -> None:
    tag = fetch(client, "/static/app.css").headers["ETag"]
    assert tag.startswith("W/")
    answer = fetch(client, "/static/app.css", **{"If-None-Match": tag})
    assert (answer.status_code, answer.data) == (304, b"")


def test_a_part_of_a_file_is_of_the_file_as_it_is(client: FlaskClient) -> None:
    answer = fetch(client, "/static/app.css", Range="bytes=0-599")
    assert answer.status_code == 206
    assert "Content-Encoding" not in answer.headers
    assert answer.data == (ROOT / "static/app.css").read_bytes()[:600]


def test_what_programs_read_stays_as_it_is(client: FlaskClient) -> None:
    answer = fetch(client, "/api/v1/openapi.json")
    assert "Content-Encoding" not in answer.headers
    assert answer.get_json()["openapi"]
