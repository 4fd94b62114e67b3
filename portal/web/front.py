"""The front of a web process: reads requests without a thread, and runs the app in one of a few threads.

Granian's own WSGI mode gives a thread to each request as it begins, so that slow clients hold all of them. Here a body
is read by the event loop, within limits, before a thread is taken; a large response is left in a file, which Granian
sends while no thread waits for the client. This is an RSGI app: the protocol is part of Granian's documentation.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from itertools import chain
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from flask import Flask
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIHTTPStreamTransport as HTTPStreamTransport
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from portal.web.body_reader import BodyReader, Unreadable
from portal.web.deployment import without_port

LIVEZ: Final = "/livez"
THREAD_TIMEOUT: Final = 5.0  # seconds to wait for a free thread
WRITE_TIMEOUT: Final = 30.0  # seconds for a piece of a streamed response
MAX_STREAMED_BYTES: Final = 1_000_000  # Granian keeps what a client does not read in memory
MAX_BYTES_IN_MEMORY: Final = 1_000_000  # of a file; a larger one is sent from the disk
FILE_OPEN_TIME: Final = 30.0  # seconds within which Granian opens a file to send

Result = TypeVar("Result")


class Front:
    """Serves a Flask app as an RSGI app, in `threads` threads."""

    def __init__(self, app: Flask, threads: int) -> None:
        settings = app.extensions["settings"]
        self._app = app
        self._bodies = BodyReader(app.config["MAX_CONTENT_LENGTH"], settings.max_event_bytes, settings.trusted_proxies)
        self._executor = ThreadPoolExecutor(threads, "request")
        self._free_threads = asyncio.Semaphore(threads)

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer a request."""
        if scope.path == LIVEZ:
            protocol.response_str(200, [("content-type", "application/json")], '{"status":"ok"}\n')
            return None
        try:
            environ = _environ(scope, await self._bodies.read(scope, protocol))
            await self._wait_for_thread()
        except Unreadable as error:
            return _answer_unreadable(protocol, error)
        except ProtocolClosed:
            return None
        loop = asyncio.get_running_loop()
        try:
            with suppress(ProtocolClosed):  # the client has gone
                await loop.run_in_executor(self._executor, _Exchange(self._app, protocol, loop).run, environ)
        finally:
            self._free_threads.release()

    async def _wait_for_thread(self) -> None:
        try:
            async with asyncio.timeout(THREAD_TIMEOUT):
                await self._free_threads.acquire()
        except TimeoutError:
            raise Unreadable(HTTPStatus.SERVICE_UNAVAILABLE, "The portal is busy. Try again in a moment.") from None


class _Exchange:
    """One request in a thread."""

    def __init__(self, app: Flask, protocol: HTTPProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self._app, self._protocol, self._loop = app, protocol, loop
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []

    def run(self, environ: dict[str, Any]) -> None:
        """Run the app and pass its response to Granian."""
        parts = self._app.wsgi_app(environ, self._start_response)
        if isinstance(parts, FileWrapper):
            self._send_file(parts.filelike)
            return
        try:
            if any(name == "content-length" for name, _ in self._headers):
                body = b"".join(chain(self._written, parts))
                self._protocol.response_bytes(self._status, self._headers, body)
            elif environ["REQUEST_METHOD"] == "HEAD" or self._status in {204, 304}:
                self._protocol.response_empty(self._status, self._headers)
            else:
                self._stream(chain(self._written, parts))
        finally:
            if close := getattr(parts, "close", None):
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], _error: Any = None
    ) -> Callable[[bytes], object]:
        self._status, self._headers = int(status[:3]), [(name.lower(), value) for name, value in headers]
        return self._written.append  # PEP 3333's `write`: what it is given comes before the parts

    def _send_file(self, file: Any) -> None:
        if os.fstat(file.fileno()).st_size <= MAX_BYTES_IN_MEMORY:
            with file:
                self._protocol.response_bytes(self._status, self._headers, file.read())
        else:
            self._protocol.response_file(self._status, self._headers, file.name)
            self._loop.call_soon_threadsafe(self._loop.call_later, FILE_OPEN_TIME, file.close)

    def _stream(self, parts: Iterable[bytes]) -> None:
        transport, sent = self._in_loop(self._open_stream()), 0
        for part in parts:
            sent += len(part)
            assert sent <= MAX_STREAMED_BYTES, "send a large response as a file"
            self._in_loop(transport.send_bytes(part))

    async def _open_stream(self) -> HTTPStreamTransport:
        return self._protocol.response_stream(self._status, self._headers)

    def _in_loop(self, awaitable: Awaitable[Result]) -> Result:
        """Await something of the event loop in this thread."""

        async def run() -> Result:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(WRITE_TIMEOUT)


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the WSGI environment of a request (PEP 3333). Nothing of the process's own environment is in it."""
    _, _, port = scope.server.rpartition(":")
    environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope.path).decode("latin-1"),
        "QUERY_STRING": scope.query_string,
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
    for name, value in scope.headers.items():
        if "_" in name:
            continue  # X_Forwarded_For would be taken for X-Forwarded-For
        key = f"HTTP_{name.upper().replace('-', '_')}"
        separator = "; " if name == "cookie" else ","
        environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    if content_type := environ.pop("HTTP_CONTENT_TYPE", ""):
        environ["CONTENT_TYPE"] = content_type
    if body or environ.pop("HTTP_CONTENT_LENGTH", None):
        environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _answer_unreadable(protocol: HTTPProtocol, error: Unreadable) -> None:
    problem = {"type": "about:blank", "title": error.status.phrase, "status": error.status, "detail": error.detail}
    headers = {"content-type": "application/problem+json", "connection": "close", "x-content-type-options": "nosniff"}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "5"
    protocol.response_str(error.status, list(headers.items()), json.dumps(problem))
