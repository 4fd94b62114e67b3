"""The webhook in a web process, which calls its handlers without Flask's dispatch: the responses are those of Flask."""

import gzip
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from flask import Flask

from portal.pbx import webhook
from portal.pbx.adapters.portsip import EXAMPLES
from portal.web import front
from portal.web.client_requests import HANDLERS
from tests.tenant_fixtures import CALL_LOST, Post

EVENT = {"id": "one", "type": "queue.call_lost", "data": CALL_LOST}
JSON = {"Content-Type": "application/json"}
BINARY = {"ce-specversion": "1.0", "ce-id": "one", "ce-type": "queue.call_lost"}
LARGE = b"[" + b" " * 70_000 + b"]"
REQUESTS: dict[str, tuple[dict[str, str], bytes]] = {  # headers and body
    "repeated": (JSON, json.dumps(EVENT).encode()),
    "in binary mode": (JSON | BINARY, json.dumps(CALL_LOST).encode()),
    "compressed": (JSON | {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(EVENT).encode())),
    "in UTF-16": ({"Content-Type": "application/json; charset=utf-16"}, json.dumps(EVENT).encode("utf-16")),
    "with other content": (JSON, json.dumps(EVENT | {"type": "queue.sla_breached"}).encode()),
    "no JSON": (JSON, b"{"),
    "no event": (JSON, b"{}"),
    "another tenant": (JSON, json.dumps(EVENT | {"tenant": "globex.example"}).encode()),
    "too large": (JSON, LARGE),
    "no media type": ({}, b"{}"),
    "another media type": ({"Content-Type": "text/plain"}, b"{}"),
    "unknown compression": (JSON | {"Content-Encoding": "br"}, b"{}"),
    "no key": (JSON | {"Authorization": ""}, b"{}"),
    "unknown key": (JSON | {"Authorization": "Bearer pbx_unknown"}, b"{}"),
    "another scheme": (JSON | {"Authorization": "Digest x"}, b"{}"),
}


@dataclass
class Sent:
    """What the front passes to Granian."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def compared(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return what a client sees, without the order of the headers and of a problem's members."""
        body = self.body
        if dict(self.headers).get("content-type") == "application/problem+json":
            body = json.dumps(json.loads(body), sort_keys=True).encode()
        headers = sorted((name, value) for name, value in self.headers if name != "content-length")
        return self.status, headers, body


@dataclass
class Both:
    """The same request to Flask and to the front."""

    app: Flask
    key: str

    def post(self, path: str, headers: dict[str, str], body: bytes, ip_address: str = "192.0.2.7") -> tuple[Any, Any]:
        """Return the response of Flask and that of the front."""
        headers = {"Authorization": f"Bearer {self.key}"} | headers
        environ = {"REMOTE_ADDR": ip_address}
        response = self.app.test_client().post(path, data=body, headers=headers, environ_overrides=environ)
        expected = Sent(response.status_code, [(n.lower(), v) for n, v in response.headers], response.data)
        sent = Sent()
        path, _, query = path.partition("?")
        scope = _scope(path, query, {name.lower(): value for name, value in headers.items()}, ip_address)
        assert path in self.app.extensions[HANDLERS]
        front._Request(scope, sent, body).answer(self.app)  # type: ignore[arg-type]
        return expected.compared(), sent.compared()


def _scope(path: str, query: str, headers: dict[str, str], ip_address: str) -> SimpleNamespace:
    """Return what Granian says about a request."""
    return SimpleNamespace(
        http_version="1.1",
        scheme="http",
        method="POST",
        path=path,
        query_string=query,
        headers=headers,
        client=f"{ip_address}:4711",
        server="127.0.0.1:80",
    )


@pytest.fixture
def both(app: Flask, key: str, working_tenant: str) -> Both:
    return Both(app, key)


@pytest.mark.parametrize("request_name", REQUESTS)
def test_an_event_has_the_same_response(both: Both, post: Post, request_name: str) -> None:
    assert post(id="one").status_code == 200
    expected, sent = both.post("/api/v1/events", *REQUESTS[request_name])
    assert sent == expected


@pytest.mark.parametrize("query", ["", "?tenant=acme.example", "?tenant=globex.example", "?tenant="])
def test_a_payload_of_a_make_has_the_same_response(both: Both, query: str) -> None:
    body = json.dumps(EXAMPLES["queue_sla_breached"]).encode()
    both.post(f"/api/v1/events/portsip{query}", JSON, body)
    expected, sent = both.post(f"/api/v1/events/portsip{query}", JSON, body)
    assert sent == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("a bug"), 500), (psycopg.OperationalError("gone"), 503)],
    ids=["bug", "database"],
)
def test_an_error_has_the_same_response(
    both: Both, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(webhook, "handle", fail)
    monkeypatch.setitem(both.app.config, "PROPAGATE_EXCEPTIONS", False)
    expected, sent = both.post("/api/v1/events", JSON, b"{}")
    assert sent == expected
    assert sent[0] == status
