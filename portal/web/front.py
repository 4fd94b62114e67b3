"""The front of a web process: reads requests without a thread, and runs the app in one of a few threads.

Granian's own WSGI mode gives a thread to each request as it begins, so that slow clients hold all of them. Here a body
is read within limits before a thread is taken; a large response is left in a file, which Granian sends while no thread
waits for the client. Granian passes requests and bodies in a thread of its own, which must not wait, through RSGI's
objects. Its documentation describes them; `portal/server.py` connects them.
"""

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from itertools import chain
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final
from wsgiref.util import FileWrapper

from flask import Flask
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from portal.monitoring import logs
from portal.monitoring.counters import EVENT_SECONDS, EVENTS, REJECTED, note
from portal.web import security_headers
from portal.web.body_reader import BodyReader, Unreadable
from portal.web.client_requests import FAILURE, HANDLERS, ClientRequest, Handler
from portal.web.deployment import client_address, report_deployment, without_port

logger = logging.getLogger(__name__)

LIVEZ: Final = "/livez"
THREAD_TIMEOUT: Final = 5.0  # seconds to wait for a free thread
CHECK_INTERVAL: Final = 0.25  # seconds between two looks at what has waited too long
MAX_STREAMED_BYTES: Final = 1_000_000  # Granian keeps what a client does not read in memory
MAX_BYTES_IN_MEMORY: Final = 1_000_000  # of a file; a larger one is sent from the disk
FILE_OPEN_TIME: Final = 30.0  # seconds within which Granian opens a file to send

BUSY: Final = Unreadable(HTTPStatus.SERVICE_UNAVAILABLE, "The portal is busy. Try again in a moment.")


class Front:
    """Serves a Flask app in `threads` threads."""

    def __init__(self, app: Flask, threads: int) -> None:
        settings = app.extensions["settings"]
        self._app = app
        self.threads = [Thread(target=self._work, name=f"request-{number}") for number in range(threads)]
        self._bodies = BodyReader(app.config["MAX_CONTENT_LENGTH"], settings.max_event_bytes, settings.trusted_proxies)
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._waiting: dict[_Request, None] = {}  # for a thread, the oldest first
        self._files: deque[tuple[float, Any]] = deque()  # when to close them
        self._headers: list[tuple[str, str]] = []  # of every response

    def start(self) -> None:
        """Start the threads."""
        for thread in self.threads:
            thread.start()
        Thread(target=self._check_times, name="request-times", daemon=True).start()

    def stop(self) -> None:
        """Let the threads end after the requests that they have."""
        for _ in self.threads:
            self._queue.put(None)

    def wait(self) -> None:
        """Wait for the threads to end, and remove the files that Granian has opened by then."""
        for thread in self.threads:
            thread.join()
        if self._files:
            time.sleep(CHECK_INTERVAL)  # it is about to open the last one
        self._close_files(float("inf"))

    def close_connections(self) -> None:
        """Close each connection after its next response, before this process ends."""
        self._headers[:] = [("connection", "close")]

    def accept(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer a request as soon as its body is there and a thread is free. This does not wait."""
        if scope.path == LIVEZ:
            protocol.response_str(200, [("content-type", "application/json"), *self._headers], '{"status":"ok"}\n')
            return

        def enqueue(body: bytes | Unreadable) -> None:
            if isinstance(body, Unreadable):
                _answer_unreadable(protocol, body)
                return
            request = _Request(scope, protocol, body, self._headers)
            self._waiting[request] = None
            self._queue.put(request)

        self._bodies.read(scope, protocol, enqueue)

    def _work(self) -> None:
        while request := self._queue.get():
            if self._takes(request):
                request.answer(self._app)
                if request.file:
                    self._files.append((time.monotonic() + FILE_OPEN_TIME, request.file))
            del request  # until the next one, it would keep its connection

    def _takes(self, request: "_Request") -> bool:
        """Return whether the caller is the one to answer the request."""
        return self._waiting.pop(request, request) is None

    def _check_times(self) -> None:
        while True:
            time.sleep(CHECK_INTERVAL)
            self._bodies.check_times()
            self._answer_late_requests()
            self._close_files(time.monotonic())

    def _close_files(self, until: float) -> None:
        """Remove the files that were to be sent until this time."""
        with suppress(IndexError):  # not asked before: at the end, another thread may take the last one
            while self._files[0][0] <= until:
                self._files.popleft()[1].close()

    def _answer_late_requests(self) -> None:
        for request in list(self._waiting):
            if time.monotonic() - request.began_at < THREAD_TIMEOUT:
                break
            if self._takes(request):
                _answer_unreadable(request.protocol, BUSY)


class _Request:
    """A request with its body, and the response of the app to it."""

    def __init__(
        self, scope: Scope, protocol: HTTPProtocol, body: bytes, server_headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.protocol, self.began_at = protocol, time.monotonic()
        self._scope, self._body, self._server_headers = scope, body, server_headers
        self.file: Any = None  # that Granian is about to open
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []

    def answer(self, app: Flask) -> None:
        """Run the app and pass its response to Granian."""
        logs.begin(self._scope.headers)
        try:
            handler = app.extensions.get(HANDLERS, {}).get(self._scope.path) if self._scope.method == "POST" else None
            if handler:
                self._run_handler(app, handler)
            else:
                self.run(app, _environ(self._scope, self._body))
        except ProtocolClosed:
            pass  # the client has gone
        except Exception:  # of this module: the app answers its own. The thread has to go on
            logger.exception("A request was not answered.")
            self.protocol.response_empty(500, [])

    def _run_handler(self, app: Flask, handler: Handler) -> None:
        """Run a handler without Flask's dispatch. Its errors are answered by Flask, as those of a view."""
        scope, settings = self._scope, app.extensions["settings"]
        headers = _headers(scope)
        ip_address = client_address(scope.client, headers.get("x-forwarded-for"), settings.trusted_proxies)
        try:
            with app.app_context():
                report_deployment(headers)
                response = handler(ClientRequest(headers, scope.query_string, ip_address, lambda _: self._body))
        except Exception as error:  # noqa: BLE001 (whatever it is, Flask's error handlers answer it)
            note((EVENTS, 1, ("error",)))
            self.run(app, _environ(scope, self._body) | {FAILURE: error})
            return
        content = [("content-type", response.media_type), ("content-length", str(len(response.body)))]
        own = [(name.lower(), value) for name, value in response.headers]
        every = security_headers.for_clients(over_tls=settings.is_https)
        self.protocol.response_bytes(response.status, [*content, *own, *every, *self._server_headers], response.body)
        note((EVENTS, 1, (response.result,)))
        if response.status == 200:
            note((EVENT_SECONDS, time.monotonic() - self.began_at, ()))

    def run(self, app: Flask, environ: dict[str, Any]) -> None:
        """Do the same for a WSGI environment."""
        parts = app.wsgi_app(environ, self._start_response)
        if isinstance(parts, FileWrapper):
            self._send_file(parts.filelike)
            return
        try:
            if any(name == "content-length" for name, _ in self._headers):
                self.protocol.response_bytes(self._status, self._headers, b"".join(chain(self._written, parts)))
            elif environ["REQUEST_METHOD"] == "HEAD" or self._status in {204, 304}:
                self.protocol.response_empty(self._status, self._headers)
            else:
                self._stream(chain(self._written, parts))
        finally:
            if close := getattr(parts, "close", None):
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], _error: Any = None
    ) -> Callable[[bytes], object]:
        self._status = int(status[:3])
        self._headers = [*((name.lower(), value) for name, value in headers), *self._server_headers]
        return self._written.append  # PEP 3333's `write`: what it is given comes before the parts

    def _send_file(self, file: Any) -> None:
        if os.fstat(file.fileno()).st_size <= MAX_BYTES_IN_MEMORY:
            with file:
                self.protocol.response_bytes(self._status, self._headers, file.read())
        else:
            self.protocol.response_file(self._status, self._headers, file.name)
            self.file = file

    def _stream(self, parts: Iterable[bytes]) -> None:
        transport, sent = self.protocol.response_stream(self._status, self._headers), 0
        for part in parts:
            sent += len(part)
            assert sent <= MAX_STREAMED_BYTES, "send a large response as a file"
            # It is sent at once; awaiting the result only says whether the client is still there.
            next(transport.send_bytes(part).__await__(), None)


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers by their names in lower case. Those that came several times are joined."""
    headers: dict[str, str] = {}
    for name, value in scope.headers.items():
        if "_" in name:
            continue  # X_Forwarded_For would be taken for X-Forwarded-For
        separator = "; " if name == "cookie" else ","
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    return headers


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the WSGI environment of a request (PEP 3333). Nothing of the process's own environment is in it."""
    _, _, port = scope.server.rpartition(":")
    environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),  # Granian decodes it; once more, a proxy would not see it
        "QUERY_STRING": scope.query_string.encode().decode("latin-1"),  # it may have bytes that are not encoded
        "REMOTE_ADDR": without_port(scope.client),
        "SERVER_NAME": without_port(scope.server),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    for name, value in _headers(scope).items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    if content_type := environ.pop("HTTP_CONTENT_TYPE", ""):
        environ["CONTENT_TYPE"] = content_type
    if body or environ.pop("HTTP_CONTENT_LENGTH", None):
        environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _answer_unreadable(protocol: HTTPProtocol, error: Unreadable) -> None:
    note((REJECTED, 1, ("busy" if error is BUSY else "incomplete",)))
    problem = {"type": "about:blank", "title": error.status.phrase, "status": error.status, "detail": error.detail}
    headers = {"content-type": "application/problem+json", "connection": "close", "x-content-type-options": "nosniff"}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "5"
    protocol.response_str(error.status, list(headers.items()), json.dumps(problem))
