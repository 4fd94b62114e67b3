"""What all pages share: page or fragment, error pages, problem documents, times for people."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from babel.dates import format_date, format_datetime, format_timedelta, get_timezone
from flask import Flask, Response, current_app, flash, jsonify, make_response, render_template, stream_with_context
from flask_wtf.csrf import CSRFError
from htmx_flask import request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.routing import RoutingException

from portal.database import DATABASE_FAULTS

PRODUCT = "PBX Notification Portal"
LOCALE = "en_GB"
TIME_FORMAT = "d MMM y, HH:mm"

ERRORS: dict[int, tuple[str, str]] = {
    400: (
        "The portal did not understand that",
        "Something in the request was missing or broken. Go back and try again.",
    ),
    403: ("This is not yours to open", "Your account may not do this. Ask your system administrator if you need it."),
    404: ("Nothing is here", "The address may be mistyped, the page may be gone, or it belongs to someone else."),
    405: ("That does not work here", "This address exists, but it cannot be used in this way."),
    413: ("That is too much", "What you sent is larger than the portal takes. Shorten it and send it again."),
    415: ("That is the wrong kind of content", "Send it in the format that the documentation names."),
    429: ("Too many tries", "Wait a few minutes, then try again."),
    500: (
        "Something went wrong in the portal",
        "It was recorded. Try again; if it happens again, tell your administrator.",
    ),
    503: (
        "The portal is not available right now",
        "The database does not answer. Wait a moment, then try again.",
    ),
}
STALE_PAGE = (
    "This page is out of date",
    "It stood open too long, so nothing was saved. Load it again, then repeat your change.",
)


def init_app(app: Flask) -> None:
    """Give the application its error pages and template filters."""
    app.register_error_handler(HTTPException, error_page)
    for fault in DATABASE_FAULTS:
        app.register_error_handler(fault, _database_away)
    app.jinja_env.globals["product"] = PRODUCT
    app.add_template_filter(local_time)
    app.add_template_filter(ago)
    app.add_template_filter(day)
    app.add_template_filter(duration)
    app.after_request(_move_whole_page)


def respond(page: str, fragment: str | None = None, status: int = 200, **context: Any) -> Response:
    """Return the fragment to HTMX, the page to everyone else, and to HTMX too where there is no fragment.

    A boosted request and a history restore replace the whole page, so they get the page. What was flashed goes along
    with a fragment, out of band. Pass 422 as the status when the form in it was refused.
    """
    if fragment and _wants_fragment():
        html = render_template(fragment, **context) + render_template("_messages.html")
    else:
        html = render_template(page, **context)
    response = make_response(html, status)
    response.vary.add("HX-Request")
    return response


def stream(pieces: Iterator[str]) -> Response:
    """Return an answer to HTMX that goes out piece by piece. The last one is the fragment; app.js shows those before.

    A proxy that keeps answers back until they are whole is asked not to.
    """
    response = Response(stream_with_context(pieces), mimetype="text/html", headers={"X-Accel-Buffering": "no"})
    response.cache_control.no_store = True
    response.vary.add("HX-Request")
    return response


def problem(status: int, title: str, detail: str, **extra: Any) -> Response:
    """Return a problem document, `application/problem+json` (RFC 9457 section 3); `extra` are its extension members."""
    response = jsonify(type="about:blank", title=title, status=status, detail=detail, **extra)
    response.status_code = status
    response.content_type = "application/problem+json"
    return response


def error_page(error: HTTPException) -> Response | HTTPException:
    """Return the answer to an error in the way its reader understands it.

    People get a page, HTMX a message that leaves the page as it is, programs under `/api/` a problem document. The
    headers of the error, like `Retry-After` and `Allow`, go along.
    """
    if error.code is None or error.response is not None or isinstance(error, RoutingException):
        return error
    title, text = (
        STALE_PAGE if isinstance(error, CSRFError) else ERRORS.get(error.code, (error.name, "Go back and try again."))
    )
    if request.path.startswith("/api/"):
        response = problem(error.code, HTTPStatus(error.code).phrase, text)
    elif _wants_fragment():
        flash(f"{title}. {text}", "error")
        response = make_response(render_template("_messages.html"), error.code)
    else:
        response = make_response(render_template("error.html", code=error.code, title=title, text=text), error.code)
    response.headers.extend(
        (name, value) for name, value in error.get_headers(request.environ) if name != "Content-Type"
    )
    response.vary.add("HX-Request")
    return response


def local_time(moment: datetime, zone: str) -> Markup:
    """Return the moment as the time of day in an IANA time zone, for people and, in its `datetime`, for programs."""
    return _time_element(moment, format_datetime(moment, TIME_FORMAT, get_timezone(zone), LOCALE), title="")


def ago(moment: datetime, zone: str) -> Markup:
    """Return how long ago the moment was ("3 minutes ago", or "in 3 minutes"); its title tells the time in the zone."""
    text = format_timedelta(moment - datetime.now(UTC), add_direction=True, locale=LOCALE)
    return _time_element(moment, text, title=format_datetime(moment, TIME_FORMAT, get_timezone(zone), LOCALE))


def day(moment: datetime, zone: str) -> str:
    """Return the day of the moment in the zone, with its year where that is another one: "5 December"."""
    local = moment.astimezone(get_timezone(zone))
    this_year = local.year == datetime.now(local.tzinfo).year
    return format_date(local.date(), "d MMMM" if this_year else "d MMMM y", LOCALE)


def duration(seconds: float) -> str:
    """Return how long something took, as people read it: "35 ms" or "1.4 s"."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _time_element(moment: datetime, text: str, title: str) -> Markup:
    utc = moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}"{}>{}</time>').format(
        utc, Markup(' title="{}"').format(title) if title else "", text
    )


def _wants_fragment() -> bool:
    htmx = request.htmx
    return bool(htmx) and not (htmx.boosted or htmx.history_restore_request)


def _database_away(error: Exception) -> Response | HTTPException:
    current_app.logger.error("The database does not answer: %s", getattr(error, "orig", error))
    return error_page(ServiceUnavailable(retry_after=10))


def _move_whole_page(response: Response) -> Response:
    """Make a redirect move the page: HTMX would follow it and lay what it leads to into the fragment's place."""
    if response.location is None or response.status_code // 100 != 3 or not _wants_fragment():
        return response
    response.headers["HX-Redirect"] = response.location
    del response.headers["Location"]
    response.status_code = HTTPStatus.NO_CONTENT
    response.set_data(b"")
    return response
