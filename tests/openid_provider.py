"""An OpenID provider on loopback, with the faults of providers and of attackers on demand."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import SecretStr

CLIENT_ID, CLIENT_SECRET = "portal", "Client~Secret-0815"
DISCOVERY, KEYS, TOKEN = "/.well-known/openid-configuration", "/keys", "/token"

Key = RSAKey | ECKey | OctKey


@cache
def rsa_key(key_id: str) -> RSAKey:
    """Return the RSA key with this id, which takes a moment to make."""
    return RSAKey.generate_key(2048, {"kid": key_id, "use": "sig", "alg": "RS256"})


@dataclass
class OpenIdProvider:
    """One client and one person. What tests change is public."""

    redirect_uri: str = "http://portal.test/sign-in/single-sign-on/callback"
    email: str | None = "admin@acme.example"
    subject: str = "person-1"
    claims: dict[str, Any] = field(default_factory=lambda: {"email_verified": True})  # None removes one
    key: Key = field(default_factory=lambda: rsa_key("first"))
    algorithm: str = "RS256"
    published: list[Key] | None = None  # else `key`
    secret: str | None = CLIENT_SECRET
    metadata: dict[str, Any] = field(default_factory=dict)
    redirect: dict[str, str | None] = field(default_factory=dict)  # other parameters of the redirect; None removes one
    denial: str | None = None
    thin: bool = False  # the email address is only in the userinfo
    userinfo_subject: str | None = None
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # by path, instead of the right one
    seconds_per_byte: float | None = None
    sign: Callable[["OpenIdProvider", dict[str, Any]], str] | None = None
    port: int = 0
    requests: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        """Its issuer URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the operator sets for it."""
        return {
            "sso_issuer": self.issuer,
            "sso_client_id": CLIENT_ID,
            "sso_client_secret": SecretStr(self.secret) if self.secret else None,
            "sso_label": "Acme ID",
        }

    def count(self, path: str) -> int:
        """Return the number of requests for a path."""
        return self.requests.count(path)

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser is sent: the person signs in at once."""
        assert query["redirect_uri"] == self.redirect_uri
        assert (query["client_id"], query["response_type"], query["scope"]) == (CLIENT_ID, "code", "openid email")
        code = secrets.token_urlsafe(32)
        self.codes[code] = query
        values: dict[str, str | None] = {"code": code, "state": query["state"], "iss": self.issuer}
        if self.denial:
            values = {"error": self.denial, "state": query["state"], "iss": self.issuer}
        values |= self.redirect
        return f"{self.redirect_uri}?{urlencode({name: value for name, value in values.items() if value is not None})}"

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        if path in self.answers:
            return self.answers[path]
        status, document = 200, dict[str, Any]()
        if path == DISCOVERY:
            document = self._metadata()
        elif path == KEYS:
            document = {"keys": [key.as_dict(private=False) for key in self.published or [self.key]]}
        elif path == TOKEN:
            status, document = self._grant(form, authorization)
        elif path == "/userinfo":
            assert authorization == "Bearer access"
            document = {"sub": self.userinfo_subject or self.subject, "email": self.email, "email_verified": True}
        return status, json.dumps(document).encode()

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}{TOKEN}",
            "jwks_uri": f"{self.issuer}{KEYS}",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def _grant(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or (asked["code_challenge"], asked["code_challenge_method"]) != (challenge, "S256"):
            return 400, {"error": "invalid_grant"}
        if not self._knows_client(form, authorization):
            return 401, {"error": "invalid_client"}
        return 200, {"access_token": "access", "token_type": "Bearer", "id_token": self._id_token(asked["nonce"])}

    def _knows_client(self, form: dict[str, str], authorization: str) -> bool:
        given = (form.get("client_id"), form.get("client_secret"))
        if authorization:
            name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            given = (unquote_plus(name), unquote_plus(password))
        return given == (CLIENT_ID, self.secret)

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "sub": self.subject, "nonce": nonce, "iat": now}
        claims |= {"exp": now + 300, "email": None if self.thin else self.email, **self.claims}
        present = {name: value for name, value in claims.items() if value is not None}
        if self.sign:
            return self.sign(self, present)
        key_id = self.key.kid
        return jwt.encode({"alg": self.algorithm, "kid": key_id}, present, self.key, algorithms=[self.algorithm])


class _Handler(BaseHTTPRequestHandler):
    peer: OpenIdProvider

    def do_GET(self) -> None:
        """Send a document, or the browser back."""
        parts = urlsplit(self.path)
        self.peer.requests.append(parts.path)
        if parts.path == "/authorize":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.send_response(302)
            self.send_header("Location", self.peer.authorize(query))
            self.end_headers()
        else:
            self._send(*self.peer.answer(parts.path, {}, self.headers["Authorization"] or ""))

    def do_POST(self) -> None:
        """Grant tokens."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.peer.requests.append(self.path)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self._send(*self.peer.answer(self.path, form, self.headers["Authorization"] or ""))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status // 100 == 3:
            self.send_header("Location", f"{self.peer.issuer}/elsewhere")
        self.end_headers()
        with suppress(OSError):  # the portal has given up
            if self.peer.seconds_per_byte is None:
                self.wfile.write(body)
                return
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(self.peer.seconds_per_byte)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def running(provider: OpenIdProvider) -> Iterator[OpenIdProvider]:
    """Run a provider."""
    handler = type("Handler", (_Handler,), {"peer": provider})
    with ThreadingHTTPServer(("127.0.0.1", provider.port), handler) as http:
        http.daemon_threads = True
        provider.port = http.server_port
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            http.shutdown()
            thread.join()
