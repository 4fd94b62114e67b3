"""Error responses: a page for people, a message for HTMX, a problem document for machine clients."""

from http import HTTPStatus

from flask import Flask, Response, current_app, flash, g, make_response, render_template
from flask_babel import gettext
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from htmx_flask import request
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.routing import RoutingException

from portal import config
from portal.database.engine import DATABASE_ERRORS
from portal.web.deployment import UntrustedHost, report_other_origin
from portal.web.i18n import API_PREFIX, to_translate
from portal.web.responses import problem, wants_fragment

ERRORS: dict[int, tuple[str, str]] = {
    400: (
        to_translate("The request is not valid"),
        to_translate("Something in the request is missing or invalid. Go back and try again."),
    ),
    403: (
        to_translate("You do not have access"),
        to_translate("Your account is not allowed to do this. If you need access, ask your system administrator."),
    ),
    404: (
        to_translate("Page not found"),
        to_translate("The address may be wrong, or the page was removed or belongs to someone else."),
    ),
    405: (
        to_translate("This does not work here"),
        to_translate("The page exists, but it does not accept this kind of request."),
    ),
    413: (
        to_translate("Request too large"),
        to_translate("What you sent is too large. Shorten it, then send it again."),
    ),
    415: (
        to_translate("Content type not supported"),
        to_translate("Send the content in the format described in the documentation."),
    ),
    429: (to_translate("Too many requests"), to_translate("Wait a few minutes, then try again.")),
    500: (
        to_translate("Something went wrong"),
        to_translate("The error was recorded. Try again. If it happens again, tell your administrator."),
    ),
    503: (
        to_translate("The portal is not available"),
        to_translate("The database does not respond. Wait a moment, then try again."),
    ),
}
EXPIRED_PAGE = (
    to_translate("This page has expired"),
    to_translate("It was open for too long, and nothing was saved. Reload it, then repeat your change."),
)

OTHER_ORIGIN = (
    to_translate("Your browser does not say where this form comes from"),
    to_translate(
        "Nothing was saved. Allow the Referer header for this site in your browser. If that does not help, ask your "
        "system administrator to check the proxy."
    ),
)
UNTRUSTED_HOST = (
    to_translate("The portal is at another address"),
    to_translate("Open it at %(url)s. If that leads here too, ask your system administrator to check the proxy."),
)


def init_app(app: Flask) -> None:
    """Register the error handlers."""
    app.register_error_handler(HTTPException, error_page)
    app.register_error_handler(UntrustedHost, _untrusted_host)
    for error in DATABASE_ERRORS:
        app.register_error_handler(error, _database_unavailable)


def error_page(error: HTTPException) -> Response | HTTPException:
    """Return the response to an error, with the error's headers, such as `Retry-After` and `Allow`.

    People get a page, HTMX a message that leaves the page as it is, machine clients of the API a problem document.
    """
    if error.code is None or error.response is not None or isinstance(error, RoutingException):
        return error
    # The page needs no account: Flask-Login would load it from a database that perhaps does not respond.
    g.setdefault("_login_user", AnonymousUserMixin())
    title, text = map(gettext, _title_and_text(error))
    if request.path.startswith(API_PREFIX):
        response = problem(error.code, HTTPStatus(error.code).phrase, text)
    elif wants_fragment():
        flash(f"{title}. {text}", "error")
        response = make_response(render_template("_messages.html"), error.code)
    else:
        response = make_response(render_template("error.html", code=error.code, title=title, text=text), error.code)
    response.headers.extend(
        (name, value) for name, value in error.get_headers(request.environ) if name != "Content-Type"
    )
    response.vary.add("HX-Request")
    return response


def is_about_origin(error: CSRFError) -> bool:
    """Return whether a form was rejected for its Referer header, and not for its token."""
    return str(error.description).startswith("The referrer")


def _title_and_text(error: HTTPException) -> tuple[str, str]:
    if not isinstance(error, CSRFError):
        page: tuple[str, str] | None = getattr(error, "page", None)
        return page or ERRORS.get(error.code or 500, (error.name, "Go back and try again."))
    if is_about_origin(error):
        report_other_origin()
        return OTHER_ORIGIN
    return EXPIRED_PAGE


def _untrusted_host(_error: UntrustedHost) -> Response:
    # Plain text: the style sheet of a page would be rejected too.
    title, text = gettext(UNTRUSTED_HOST[0]), gettext(UNTRUSTED_HOST[1], url=config.current().portal_url)
    return Response(f"{title}. {text}\n", 400, mimetype="text/plain")


def _database_unavailable(error: Exception) -> Response | HTTPException:
    current_app.logger.error("The database does not respond: %s", getattr(error, "orig", error))
    return error_page(ServiceUnavailable(retry_after=10))
