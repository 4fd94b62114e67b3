"""The front as a WSGI server (PEP 3333). The server itself is in tests/test_server.py."""

from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

from portal.web.front import _Request


class Answer:
    """What Granian would send."""

    status = 0
    body = b""

    def response_bytes(self, status: int, _headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.body = status, body


def test_what_an_app_writes_comes_before_what_it_returns() -> None:
    app, answer = Flask(__name__), Answer()

    def wsgi_app(_environ: dict[str, Any], start_response: Callable[..., Callable[[bytes], object]]) -> Iterator[bytes]:
        write = start_response("201 CREATED", [("Content-Length", "11")])
        write(b"written ")
        return iter([b"end"])

    app.wsgi_app = wsgi_app  # type: ignore[assignment]
    _Request(None, answer, b"").run(app, {"REQUEST_METHOD": "GET"})  # type: ignore[arg-type]
    assert (answer.status, answer.body) == (201, b"written end")
