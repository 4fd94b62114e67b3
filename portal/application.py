"""The Flask application, which does around an answer to a program only what a program has a use for."""

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import UnsupportedMediaType

from portal import headers


class Portal(Flask):
    """Sessions and CSRF tokens are for browsers. A view that is `for_programs` does without them.

    They would take a third of the time that a web process has for an event.
    """

    def preprocess_request(self) -> ResponseReturnValue | None:
        """Do what comes before a page. Nobody uploads anything, so no file is even looked at."""
        if self._answers_a_program():
            return None
        if request.mimetype.startswith("multipart/"):
            raise UnsupportedMediaType
        return super().preprocess_request()

    def process_response(self, response: Response) -> Response:
        """Do what comes after a page, and tell a browser what it may do with the answer."""
        over_tls = self.extensions["settings"].is_https
        if self._answers_a_program():
            return headers.add(response, headers.PROGRAM, over_tls=over_tls)
        return headers.add(super().process_response(response), headers.PAGE, over_tls=over_tls)

    def _answers_a_program(self) -> bool:
        view = self.view_functions.get(request.endpoint or "")
        return getattr(view, "is_for_programs", False)
