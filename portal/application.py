"""The Flask application, which does around an answer to a program only what a program has a use for."""

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue


class Portal(Flask):
    """Sessions, CSRF tokens and headers are for browsers. A view that is `for_programs` does without them.

    They would take a third of the time that a web process has for an event.
    """

    def preprocess_request(self) -> ResponseReturnValue | None:
        """Do what comes before a page."""
        return None if self._answers_a_program() else super().preprocess_request()

    def process_response(self, response: Response) -> Response:
        """Do what comes after a page."""
        if not self._answers_a_program():
            return super().process_response(response)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _answers_a_program(self) -> bool:
        view = self.view_functions.get(request.endpoint or "")
        return getattr(view, "is_for_programs", False)
