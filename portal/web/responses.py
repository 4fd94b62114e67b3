"""Responses: page or fragment, streams, problem documents."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, flash, jsonify, make_response, render_template, stream_with_context
from htmx_flask import request

from portal.errors import Refusal

PROBLEM_TYPE: Final = "application/problem+json"


def init_app(app: Flask) -> None:
    """Make redirects work for HTMX requests."""
    app.after_request(_redirect_whole_page)


def respond(page: str, fragment: str | None = None, /, status: int = 200, **context: Any) -> Response:
    """Return the fragment for an HTMX request, otherwise the page.

    A boosted request or a history restore replaces the whole page, so it gets the page. A fragment brings the flashed
    messages along, out of band. Pass the status 422 with an invalid form.
    """
    if fragment and wants_fragment():
        html = render_template(fragment, **context) + render_template("_messages.html")
    else:
        html = render_template(page, **context)
    response = make_response(html, status)
    response.vary.add("HX-Request")
    return response


def flash_result(result: object, success: str) -> None:
    """Flash a refusal as an error, and any other result as this success message."""
    flash(*((result.text, "error") if isinstance(result, Refusal) else (success, "success")))


def flash_undo(success: str, undo_url: str) -> None:
    """Flash a success message with the button "Undo", which posts to a URL that does the opposite."""
    flash(success, f"undo:{undo_url}")


def stream(pieces: Iterator[str]) -> Response:
    """Return a streamed response for HTMX. Its last piece is the fragment; app.js shows the pieces before.

    The header `X-Accel-Buffering` asks a proxy not to buffer it.
    """
    response = Response(stream_with_context(pieces), mimetype="text/html", headers={"X-Accel-Buffering": "no"})
    response.cache_control.no_store = True
    response.vary.add("HX-Request")
    return response


def problem(status: int, title: str, detail: str) -> Response:
    """Return the response with a problem document."""
    response = jsonify(problem_document(status, title, detail))
    response.status_code, response.content_type = status, PROBLEM_TYPE
    return response


def problem_document(status: int, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Return a problem document (RFC 9457), with `extra` as its extension members."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}


def wants_fragment() -> bool:
    """Return whether HTMX replaces only a part of the page: the request is neither boosted nor a history restore."""
    htmx = request.htmx
    return bool(htmx) and not (htmx.boosted or htmx.history_restore_request)


def _redirect_whole_page(response: Response) -> Response:
    """Redirect the whole page. HTMX would follow the redirect and put the new page into the fragment's place."""
    if response.location is None or response.status_code // 100 != 3 or not wants_fragment():
        return response
    response.headers["HX-Redirect"] = response.location
    del response.headers["Location"]
    response.status_code = HTTPStatus.NO_CONTENT
    response.set_data(b"")
    return response
