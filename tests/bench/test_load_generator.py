"""The load generator, against a server on a real socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest

from bench.load_generator import post, request

pytestmark = pytest.mark.slow


class _Server(ThreadingHTTPServer):
    """Counts connections; refuses the body `wrong`, and drops the connection on `drop`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.lock = Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.bodies.append(body)
        if body != b"drop":
            self.send_response(503 if body == b"wrong" else 200)
            self.end_headers()
            self.wfile.write(self.headers["Authorization"].encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_each_request_is_posted_once_and_answered() -> None:
    bodies = [str(number).encode() for number in range(50)]
    with serving() as server:
        load = post(server.server_port, [request("/", body, "key") for body in bodies], 8)
        assert sorted(server.bodies) == sorted(bodies)
    assert len(load.answers) == 50
    assert load.failures == []
    assert all(0 < answer.seconds < 10 for answer in load.answers)


def test_refusals_and_broken_connections_are_failures() -> None:
    with serving() as server:
        load = post(server.server_port, [request("/", body, "key") for body in (b"good", b"wrong", b"drop")], 3)
    assert len(load.answers) == 3
    assert sorted(answer.head[9:12] for answer in load.failures) == [b"", b"503"]
