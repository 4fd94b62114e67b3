"""The Flask app. Skips sessions, CSRF and page hooks for machine clients."""

from typing import Any, Final

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import ImmutableDict
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.routing import IntegerConverter, Map

from portal.web import deployment, security_headers
from portal.web.client_requests import FAILURE
from portal.web.templating import PageEnvironment

MAX_ROW_ID: Final = 2**31 - 1  # an `integer` of Postgres


class RowId(IntegerConverter):
    """The id of a row in a URL. There is no page for one that Postgres cannot store."""

    regex = r"\d{1,10}"

    def __init__(self, map: Map, *arguments: Any, **options: Any) -> None:  # noqa: A002 (Werkzeug's name)
        super().__init__(map, *arguments, **{"max": MAX_ROW_ID, **options})


class UrlMap(Map):
    """Routes whose integers are ids of rows."""

    default_converters = ImmutableDict({**Map.default_converters, "int": RowId})


class Portal(Flask):
    """A Flask app that runs a view marked with `for_clients` without the hooks of pages.

    The hooks would take a third of a web process's time for an event.
    """

    url_map_class = UrlMap
    jinja_environment = PageEnvironment

    def preprocess_request(self) -> ResponseReturnValue | None:
        """Run the hooks before a page. No page takes a file, so an upload is rejected unread."""
        if failure := request.environ.get(FAILURE):
            raise failure
        deployment.check_request()
        if self._is_for_client():  # has a key and no session: another host name does not harm
            return None
        deployment.check_host()
        if request.mimetype.startswith("multipart/"):
            raise UnsupportedMediaType
        return super().preprocess_request()

    def process_response(self, response: Response) -> Response:
        """Run the hooks after a page, and add the security headers."""
        over_tls = self.extensions["settings"].is_https
        if self._is_for_client():
            return security_headers.add(response, security_headers.API, over_tls=over_tls)
        return security_headers.add(super().process_response(response), security_headers.PAGE, over_tls=over_tls)

    def _is_for_client(self) -> bool:
        view = self.view_functions.get(request.endpoint or "")
        return getattr(view, "is_for_clients", False)
