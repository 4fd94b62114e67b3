"""Reading a request's body before a thread is taken for the request.

A client may send it as slowly as the limits here allow without being in anybody's way. Everything but `check_times`
runs in Granian's own thread, which must never wait.
"""

import time
from asyncio import Future
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast

from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian.rsgi import Scope

from portal.web.deployment import client_address, network

API_PREFIX: Final = "/api/"
BODY_TIMEOUT: Final = 15.0  # seconds for a whole body
SLOW_AFTER: Final = 1.0  # seconds after which an incomplete body counts as slow
MAX_SLOW_BODIES: Final = 500  # at a time in one process
MAX_SLOW_BODIES_PER_SOURCE: Final = 50


class Unreadable(Exception):
    """A request that does not reach the app, with the status and the reason for its response."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status, self.detail = status, detail


TIMED_OUT: Final = Unreadable(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive.")
CUT_OFF: Final = Unreadable(HTTPStatus.BAD_REQUEST, "The request's body is incomplete, or has trailer fields.")
OnBody = Callable[[bytes | Unreadable], None]


class BodyReader:
    """Reads bodies up to the size that the app accepts, from clients behind a number of trusted proxies."""

    def __init__(self, max_form_bytes: int, max_event_bytes: int, proxies: int) -> None:
        self._max_form_bytes, self._max_event_bytes, self._proxies = max_form_bytes, max_event_bytes, proxies
        self._incomplete: dict[IncompleteBody, None] = {}  # the oldest first

    def read(self, scope: Scope, protocol: HTTPProtocol, on_body: OnBody) -> None:
        """Pass the body to `on_body` once it is complete, or why it is not.

        Of a body that is too large for the app it is the beginning, which is too large as well.
        """
        headers, is_event = scope.headers, scope.path.startswith(API_PREFIX)
        length = headers.get("content-length")  # which Granian removes beside Transfer-Encoding
        if length == "0" or (length is None and "transfer-encoding" not in headers):
            on_body(b"")
        elif is_event and "authorization" not in headers:
            on_body(b"")  # a request without a key is rejected whatever it contains
        else:
            limit = self._max_event_bytes if is_event else self._max_form_bytes
            IncompleteBody(scope, protocol, limit, length, self._incomplete, on_body).ask()

    def check_times(self) -> None:
        """End the bodies that take too long, and the newest slow ones of a client that sends too many."""
        now, slow_by_source = time.monotonic(), Counter[str]()
        for body in list(self._incomplete):
            age = now - body.began_at
            if age < SLOW_AFTER:
                break
            source = _source(body.scope, self._proxies)
            slow_by_source[source] += 1
            is_surplus = slow_by_source[source] > MAX_SLOW_BODIES_PER_SOURCE or slow_by_source.total() > MAX_SLOW_BODIES
            if is_surplus or age > BODY_TIMEOUT:
                body.cancel()


class IncompleteBody:
    """A body on its way. Granian calls it with each part."""

    def __init__(
        self,
        scope: Scope,
        protocol: HTTPProtocol,
        limit: int,
        length: str | None,
        incomplete: "dict[IncompleteBody, None]",
        on_body: OnBody,
    ) -> None:
        self.scope, self.began_at = scope, time.monotonic()
        self._protocol, self._limit, self._length = protocol, limit, length
        self._is_in_one_part = length is not None and int(length) <= limit
        self._parts = None if self._is_in_one_part else aiter(protocol)
        self._read = bytearray()
        self._empty_parts = 0  # the end is one; an error is one as well, as are trailer fields
        self._next_part: Future[bytes] | None = None
        self._incomplete, self._on_body = incomplete, on_body
        incomplete[self] = None

    def ask(self) -> None:
        """Have Granian call this with the next part."""
        try:
            self._next_part = part = cast("Future[bytes]", anext(self._parts) if self._parts else self._protocol())
        except StopAsyncIteration:
            self._end(bytes(self._read) if self._length is None and self._empty_parts == 1 else CUT_OFF)
        else:
            part.add_done_callback(self)

    def __call__(self, part: "Future[bytes]") -> None:
        """Take a part."""
        self._next_part = None  # it refers to this body, and Granian's objects are not found by the garbage collector
        if part.cancelled():
            self._end(TIMED_OUT)
        elif part.exception():  # the client has left. Raised, it would refer to `part`, which refers to it
            self._end(CUT_OFF)
        else:
            self._read += (received := part.result())
            self._empty_parts += not received
            if self._is_in_one_part or len(self._read) > self._limit:
                self._end(bytes(self._read))
            else:
                self.ask()

    def cancel(self) -> None:
        """Wait no longer. This may run in any thread."""
        if part := self._next_part:
            part.cancel()

    def _end(self, result: bytes | Unreadable) -> None:
        del self._incomplete[self]
        self._on_body(result)


def _source(scope: Scope, proxies: int) -> str:
    """Return the client's network."""
    lines = [value for name, value in scope.headers.items() if name == "x-forwarded-for"] if proxies else []
    return network(client_address(scope.client, ",".join(lines), proxies))  # some proxies add a line
