"""A reverse proxy with TLS on loopback, which does to the headers what a test says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import trustme
from flask import Flask
from werkzeug.serving import make_server

Headers = dict[str, str]
ChangeHeaders = Callable[[Headers], None]
HOST = "127.0.0.1"


def well_behaved(headers: Headers) -> None:
    """Add the client's address, and set the scheme and the host, as the docs' examples do."""
    headers["X-Forwarded-For"] = ", ".join(filter(None, (headers.get("X-Forwarded-For"), "203.0.113.9")))
    headers["X-Forwarded-Proto"], headers["X-Forwarded-Host"] = "https", headers["Host"]


class ReverseProxy(ThreadingHTTPServer):
    """Passes GET requests on to the app that is `target`, with changed headers; without one it answers 502."""

    daemon_threads = True
    target: int | None = None
    change_headers: ChangeHeaders = staticmethod(well_behaved)

    def handle_error(self, *_: object) -> None:
        """A client that does not accept the certificate is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: ReverseProxy

    def do_GET(self) -> None:
        if self.server.target is None:
            self.send_error(502)
            return
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        self.server.change_headers(headers)
        upstream = HTTPConnection(HOST, self.server.target, timeout=10)
        upstream.request("GET", self.path, headers=headers)
        response = upstream.getresponse()
        body = response.read()
        upstream.close()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_proxy(certificate: trustme.LeafCert) -> Iterator[ReverseProxy]:
    """Run the proxy."""
    proxy = ReverseProxy((HOST, 0), _Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    proxy.socket = context.wrap_socket(proxy.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield proxy
    proxy.shutdown()
    thread.join()
    proxy.server_close()


@contextmanager
def serving(app: Flask) -> Iterator[int]:
    """Serve an app in this process, and yield its port."""
    server = make_server(HOST, 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()
