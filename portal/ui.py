"""What all pages share: page or fragment, error pages, problem documents, times for people."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_skeleton, format_time, format_timedelta
from babel.numbers import format_decimal
from flask import Flask, Response, current_app, flash, jsonify, make_response, render_template, stream_with_context
from flask_babel import get_locale, gettext
from flask_wtf.csrf import CSRFError
from htmx_flask import request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.routing import RoutingException

from portal import reading
from portal.database import DATABASE_FAULTS
from portal.languages import locale, to_translate

PRODUCT = "PBX Notification Portal"
DAY, TIME = "yMMMd", "HH:mm"

ERRORS: dict[int, tuple[str, str]] = {
    400: (
        to_translate("The portal did not understand that"),
        to_translate("Something in the request was missing or broken. Go back and try again."),
    ),
    403: (
        to_translate("This is not yours to open"),
        to_translate("Your account may not do this. Ask your system administrator if you need it."),
    ),
    404: (
        to_translate("Nothing is here"),
        to_translate("The address may be mistyped, the page may be gone, or it belongs to someone else."),
    ),
    405: (
        to_translate("That does not work here"),
        to_translate("This address exists, but it cannot be used in this way."),
    ),
    413: (
        to_translate("That is too much"),
        to_translate("What you sent is larger than the portal takes. Shorten it and send it again."),
    ),
    415: (
        to_translate("That is the wrong kind of content"),
        to_translate("Send it in the format that the documentation names."),
    ),
    429: (to_translate("Too many tries"), to_translate("Wait a few minutes, then try again.")),
    500: (
        to_translate("Something went wrong in the portal"),
        to_translate("It was recorded. Try again; if it happens again, tell your administrator."),
    ),
    503: (
        to_translate("The portal is not available right now"),
        to_translate("The database does not answer. Wait a moment, then try again."),
    ),
}
STALE_PAGE = (
    to_translate("This page is out of date"),
    to_translate("It stood open too long, so nothing was saved. Load it again, then repeat your change."),
)


def init_app(app: Flask) -> None:
    """Give the application its error pages and template filters."""
    reading.init_app(app)
    app.register_error_handler(HTTPException, error_page)
    for fault in DATABASE_FAULTS:
        app.register_error_handler(fault, _database_away)
    app.jinja_env.globals["product"] = PRODUCT
    app.add_template_filter(local_time)
    app.add_template_filter(ago)
    app.add_template_filter(lasting)
    app.add_template_filter(day)
    app.add_template_filter(duration)
    app.add_template_filter(decimal)
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


def download(content: Iterator[str], name: str) -> Response:
    """Return a CSV file that is sent while it is made, and kept nowhere on its way."""
    response = Response(stream_with_context(content), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=name)
    response.cache_control.no_store = True
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
    title, text = gettext(title), gettext(text)
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
    return _time_element(moment, _in_words(moment, zone), title="")


def ago(moment: datetime, zone: str) -> Markup:
    """Return how long ago the moment was ("3 minutes ago", or "in 3 minutes"); its title tells the time in the zone."""
    text = format_timedelta(moment - datetime.now(UTC), add_direction=True, locale=readers_locale())
    return _time_element(moment, text, title=_in_words(moment, zone))


def _in_words(moment: datetime, zone: str) -> str:
    there, reader = moment.astimezone(ZoneInfo(zone)), readers_locale()
    return f"{format_skeleton(DAY, there, locale=reader)}, {format_time(there, TIME, locale=reader)}"


def readers_locale() -> Locale:
    """Return the locale of whoever reads the page."""
    return locale(str(get_locale() or "en"))


def lasting(time: timedelta) -> str:
    """Return how much later something happened: "2 minutes later", or "at once" within a second."""
    if time < timedelta(seconds=1):
        return gettext("at once")
    return gettext("%(time)s later", time=format_timedelta(time, threshold=1.5, locale=readers_locale()))


def day(moment: datetime, zone: str) -> str:
    """Return the day of the moment in the zone, with its year where that is another one: "5 December"."""
    local = moment.astimezone(ZoneInfo(zone))
    this_year = local.year == datetime.now(local.tzinfo).year
    return format_skeleton("MMMMd" if this_year else "yMMMMd", local, locale=readers_locale())


def decimal(number: int) -> str:
    """Return a number with its thousands apart, as its reader writes it: "1,204"."""
    return format_decimal(number, locale=readers_locale())


def duration(seconds: float) -> str:
    """Return how long something took, as people read it: "35 ms" or "1.4 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{format_decimal(seconds, '0.0', locale=readers_locale())} s"


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
