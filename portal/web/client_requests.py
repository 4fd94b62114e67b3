"""Requests of programs, such as a PBX, and the responses to them: apart from Flask, whose dispatch they can do without.

A handler gets them from a view of Flask's, or in a web process from `web.front`, which saves a third of the time that
an event takes. Either way the request, the response and its headers are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from flask import Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header

HANDLERS: Final = "client_handlers"  # of POST requests, by path
FAILURE: Final = "portal.failure"  # in a WSGI environment: the error of a handler, for Flask to answer


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request. The names of its headers are in lower case.

    `read_body` returns the body, or of a body that is longer than its argument at least one byte more than that.
    """

    headers: Mapping[str, str]
    query: str
    ip_address: str | None
    read_body: Callable[[int], bytes]

    @property
    def media_type(self) -> tuple[str, Mapping[str, str]]:
        """The media type in lower case, empty if there is none, and its parameters."""
        return _media_type(self.headers.get("content-type", ""))


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """A response with its own headers. Those that every response has are added.

    `result` is the event's, under which it is counted.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    media_type: str = "application/json"
    result: str = "rejected"


Handler: TypeAlias = Callable[[ClientRequest], ClientResponse]


def register(app: Flask, path: str, handler: Handler) -> None:
    """Have the front call the handler for POST requests to this path, with a slash at its end or without."""
    app.extensions.setdefault(HANDLERS, {}).update({path: handler, f"{path}/": handler})


def as_response(response: ClientResponse) -> Response:
    """Return Flask's response."""
    return Response(response.body, response.status, response.headers, mimetype=response.media_type)


def flask_request() -> ClientRequest:
    """Return the request that Flask handles."""
    headers = {name.lower(): value for name, value in request.headers}
    return ClientRequest(headers, request.query_string.decode(errors="replace"), request.remote_addr, _read_body)


def _read_body(max_bytes: int) -> bytes:
    # One byte more is read, to tell a body that fits from one in chunks that is too large.
    request.max_content_length = max_bytes + 1
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        return bytes(max_bytes + 1)


@lru_cache(maxsize=64)
def _media_type(header: str) -> tuple[str, Mapping[str, str]]:
    media_type, parameters = parse_options_header(header)
    return media_type.lower(), parameters
