"""Page or fragment, error pages, problem documents, times."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, abort, flash, redirect
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_bootstrap import Bootstrap5
from flask_wtf import CSRFProtect
from htmx_flask import Htmx
from jinja2 import StrictUndefined
from werkzeug.exceptions import TooManyRequests

from portal.config import PRODUCT, ROOT
from portal.database import clock
from portal.web import errors, filters, i18n, responses, static_files

HTMX = {"HX-Request": "true"}
PAGE = """{% extends "card.html" %}
{% block title %}Page{% endblock %}
{% block content %}{% include "_part.html" %}{% endblock %}"""
FRAGMENT = '<p id="part">{{ word }}</p>'


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """An application that has our templates and nothing else of the portal."""
    folder = tmp_path_factory.mktemp("templates")
    (folder / "page.html").write_text(PAGE)
    (folder / "_part.html").write_text(FRAGMENT)
    app = Flask(__name__, template_folder=str(ROOT / "templates"), static_folder=str(ROOT / "static"))
    app.secret_key = "only for this test"
    app.jinja_env.undefined = StrictUndefined
    app.jinja_loader.searchpath.append(str(folder))  # type: ignore[union-attr]
    for extension in (Bootstrap5, CSRFProtect, Htmx):
        extension(app)
    app.jinja_env.globals |= {"product": PRODUCT, "help_url": lambda: "/help/"}
    for module in (static_files, i18n, errors, filters, responses):
        module.init_app(app)
    _add_views(app)
    app.add_url_rule("/folder/", "folder", lambda: "")
    return app


@pytest.fixture
def client(pages: Flask) -> FlaskClient:
    """A browser that has not been there yet."""
    return pages.test_client()


def _add_views(app: Flask) -> None:
    @app.route("/part", methods=["GET", "POST"])
    def part() -> ResponseReturnValue:
        return responses.respond("page.html", "_part.html", word="hello")

    @app.get("/refused")
    def refused() -> ResponseReturnValue:
        flash("Not saved.", "error")
        return responses.respond("page.html", "_part.html", 422, word="no")

    @app.get("/whole")
    def whole() -> ResponseReturnValue:
        return responses.respond("page.html", word="whole")

    @app.get("/moved")
    def moved() -> ResponseReturnValue:
        return redirect("/part", 303)

    @app.get("/error/<int:code>")
    @app.get("/api/error/<int:code>")
    def error(code: int) -> ResponseReturnValue:
        if code == 429:
            raise TooManyRequests(retry_after=7)
        abort(code)

    @app.get("/broken")
    def broken() -> ResponseReturnValue:
        raise ZeroDivisionError


def test_a_browser_gets_the_page(client: FlaskClient) -> None:
    answer = client.get("/part")
    assert "<!doctype html>" in answer.text
    assert '<p id="part">hello</p>' in answer.text
    assert "HX-Request" in answer.headers["Vary"]


def test_htmx_gets_the_fragment_alone(client: FlaskClient) -> None:
    answer = client.get("/part", headers=HTMX)
    assert answer.text.strip() == '<p id="part">hello</p>'
    assert "HX-Request" in answer.headers["Vary"]


@pytest.mark.parametrize("header", ["HX-Boosted", "HX-History-Restore-Request"])
def test_htmx_gets_the_page_where_it_replaces_the_page(client: FlaskClient, header: str) -> None:
    answer = client.get("/part", headers={**HTMX, header: "true"})
    assert "<!doctype html>" in answer.text
    assert "HX-Request" in answer.headers["Vary"]


def test_htmx_gets_the_page_where_there_is_no_fragment(client: FlaskClient) -> None:
    assert "<!doctype html>" in client.get("/whole", headers=HTMX).text


def test_a_refused_form_is_422_and_brings_its_message_along(client: FlaskClient) -> None:
    answer = client.get("/refused", headers=HTMX)
    assert answer.status_code == 422
    assert answer.text.startswith('<p id="part">no</p>')
    assert '<div id="messages" hx-swap-oob="innerHTML">' in answer.text
    assert "Not saved." in answer.text
    assert "Not saved." not in client.get("/part").text


def test_a_page_shows_what_was_flashed_once(client: FlaskClient) -> None:
    assert client.get("/refused").text.count("Not saved.") == 1


def test_a_redirect_moves_the_page_and_not_the_fragment(client: FlaskClient) -> None:
    answer = client.get("/moved", headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Redirect"], answer.text) == (204, "/part", "")
    assert client.get("/moved").location == "/part"


@pytest.mark.parametrize("code", sorted(errors.ERRORS))
def test_people_get_a_page_that_says_what_to_do(client: FlaskClient, code: int) -> None:
    answer = client.get(f"/error/{code}")
    title, text = errors.ERRORS[code]
    assert answer.status_code == code
    assert answer.mimetype == "text/html"
    assert f"<h1>{title}</h1>" in answer.text
    assert text in answer.text


@pytest.mark.parametrize("code", sorted(errors.ERRORS))
def test_programs_get_a_problem_document(client: FlaskClient, code: int) -> None:
    answer = client.get(f"/api/error/{code}")
    assert answer.status_code == code
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert (answer.json["type"], answer.json["status"]) == ("about:blank", code)
    assert answer.json["detail"] == errors.ERRORS[code][1]


def test_htmx_gets_a_message_that_leaves_the_page_alone(client: FlaskClient) -> None:
    answer = client.get("/error/403", headers=HTMX)
    assert answer.status_code == 403
    assert answer.text.strip().startswith('<div id="messages" hx-swap-oob="innerHTML">')
    assert errors.ERRORS[403][0] in answer.text


def test_an_error_keeps_its_headers(client: FlaskClient) -> None:
    assert client.get("/error/429").headers["Retry-After"] == "7"
    assert client.get("/api/error/429").headers["Retry-After"] == "7"
    assert "GET" in client.post("/broken").headers["Allow"]


def test_an_unknown_error_has_a_page_too(client: FlaskClient) -> None:
    assert "<h1>I&#39;m a teapot</h1>" in client.get("/error/418").text


def test_a_crash_tells_people_nothing_of_its_cause(client: FlaskClient) -> None:
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert errors.ERRORS[500][0] in answer.text
    assert "ZeroDivisionError" not in answer.text


def test_a_form_without_a_token_is_told_that_the_page_is_out_of_date(client: FlaskClient) -> None:
    answer = client.post("/part")
    assert answer.status_code == 400
    assert errors.EXPIRED_PAGE[0] in answer.text


def test_a_wrong_address_is_corrected_as_ever(client: FlaskClient) -> None:
    assert client.get("/folder").status_code == 308


def test_a_problem_carries_more_members(client: FlaskClient) -> None:
    document = {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "A field is wrong.",
    }
    errors = [{"field": "type", "message": "x"}]
    text = (422, "Unprocessable Content", "A field is wrong.")
    assert responses.problem_document(*text, errors=errors) == document | {"errors": errors}
    with client.application.test_request_context():
        answer = responses.problem(*text)
    assert (answer.status_code, answer.content_type, answer.json) == (422, "application/problem+json", document)


def test_a_time_is_shown_in_the_zone_and_told_in_utc() -> None:
    moment = datetime(2026, 7, 1, 22, 30, 5, tzinfo=UTC)
    shown = '<time datetime="2026-07-01T22:30:05Z">2 Jul 2026, 00:30</time>'
    assert filters.local_time(moment, "Europe/Berlin") == shown
    assert filters.local_time(moment.astimezone().replace(microsecond=7), "Europe/Berlin") == shown


def test_a_time_is_told_as_people_count_it() -> None:
    now = datetime.now(UTC)
    clock.note(now)
    assert ">3 minutes ago</time>" in filters.ago(now - timedelta(minutes=3), "UTC")
    assert ">in 2 hours</time>" in filters.ago(now + timedelta(hours=2), "UTC")
    assert 'title="1 Jan 2020, 09:00"' in filters.ago(datetime(2020, 1, 1, tzinfo=UTC), "Asia/Tokyo")
