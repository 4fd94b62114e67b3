"""A token server on loopback that behaves as Microsoft's and Google's do, with their errors on demand."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep, time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import RSAKey

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ID, CLIENT_SECRET = "11111111-2222-3333-4444-555555555555", "Client~Secret-0815"
DIRECTORY = "acme.onmicrosoft.com"
MAILBOX = "pbx@acme.example"


class Denied(Exception):
    """An error response (RFC 6749, section 5.2)."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(error)
        self.body = {"error": error, "error_description": description}


@dataclass
class TokenServer:
    """One app and one account. What tests change is public."""

    redirect_uri: str = "http://portal.test/oauth/callback"
    account: str = MAILBOX
    lifetime: float = 3600
    rotates: bool = True  # as Microsoft: a refresh returns a new refresh token
    grants_refresh_token: bool = True
    certificate: x509.Certificate | None = None  # instead of the secret
    service_account_key: str = ""  # the public key as PEM
    denial: Denied | None = None  # of every token request
    answer: tuple[int, bytes] | None = None  # instead of every answer
    seconds_per_byte: float | None = None  # 0: the connection ends in the middle of the answer
    secret: str = CLIENT_SECRET
    port: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    access_tokens: dict[str, float] = field(default_factory=dict)  # until when they are valid
    refresh_tokens: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the operator sets for it."""
        return {
            "microsoft_authority": self.url,
            "google_authorization_url": f"{self.url}/google/auth",
            "google_token_url": f"{self.url}/google/token",
        }

    @property
    def token_requests(self) -> list[dict[str, str]]:
        """The forms of all requests for tokens."""
        return [form for path, form in self.requests if path.endswith("/token")]

    def revoke(self) -> None:
        """End everything that was granted, as a changed password does."""
        self.access_tokens.clear()
        self.refresh_tokens.clear()

    # Authorization

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser is sent: the account consents at once."""
        assert query["redirect_uri"] == self.redirect_uri, "AADSTS50011"
        assert (query["client_id"], query["response_type"]) == (CLIENT_ID, "code")
        if self.denial:
            return f"{self.redirect_uri}?{urlencode({**self.denial.body, 'state': query['state']})}"
        code = secrets.token_urlsafe(32)
        self.codes[code] = query
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': query['state']})}"

    # Tokens

    def token(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        """Return the tokens for a request, or raise Denied."""
        if self.denial:
            raise self.denial
        if form["grant_type"] == JWT_BEARER:
            self._check_service_account(form)
            return self._grant()
        self._check_client(path, form)
        match form["grant_type"]:
            case "authorization_code":
                self._check_code(form)
                return self._grant(refresh=self.grants_refresh_token)
            case "refresh_token":
                if form.get("refresh_token") not in self.refresh_tokens:
                    raise Denied("invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.")
                return self._grant(refresh=self.rotates)
            case "client_credentials":
                if not form["scope"].endswith("/.default"):
                    raise Denied("invalid_scope", "AADSTS1002012: The provided scope is not valid.")
                return self._grant()
        raise Denied("unsupported_grant_type", "AADSTS70003")

    def _check_client(self, path: str, form: dict[str, str]) -> None:
        if form.get("client_id") != CLIENT_ID:
            raise Denied("unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if self.certificate is not None:
            key = RSAKey.import_key(_public_key(self.certificate))
            claims = jwt.decode(form["client_assertion"], key, algorithms=["PS256"]).claims
            assert claims["aud"] == self.url + path
            assert 0 < claims["exp"] - time() < 700
            assert claims["iss"] == claims["sub"] == CLIENT_ID
        elif form.get("client_secret") != self.secret:
            raise Denied("invalid_client", f"AADSTS7000215: Invalid client secret provided for app '{CLIENT_ID}'.")

    def _check_code(self, form: dict[str, str]) -> None:
        asked = self.codes.pop(form["code"], None)
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            raise Denied("invalid_grant", "AADSTS70008: The code has expired.")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (asked.get("code_challenge"), asked.get("code_challenge_method")) != (challenge, "S256"):
            raise Denied("invalid_grant", "AADSTS501481: The code_verifier does not match the code_challenge.")

    def _check_service_account(self, form: dict[str, str]) -> None:
        key = RSAKey.import_key(self.service_account_key)
        claims = jwt.decode(form["assertion"], key, algorithms=["RS256"]).claims
        assert claims["aud"] == f"{self.url}/google/token"
        assert claims["scope"] == "https://mail.google.com/"
        assert 0 < claims["exp"] - time() <= 3600
        if claims["sub"] != self.account:
            raise Denied("unauthorized_client", 'Client is unauthorized to retrieve access tokens using "this method".')

    def _grant(self, *, refresh: bool = False) -> dict[str, Any]:
        token = secrets.token_urlsafe(1200)
        self.access_tokens[token] = time() + self.lifetime
        granted = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        if refresh:
            self.refresh_tokens.append(secrets.token_urlsafe(600))
            granted["refresh_token"] = self.refresh_tokens[-1]
        claims = json.dumps({"preferred_username": self.account}).encode()
        return {**granted, "id_token": f"e30.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}."}

    def mailbox_of(self, token: str) -> str | None:
        """Return whose valid token this is."""
        return self.account if self.access_tokens.get(token, 0) > time() else None


class MailboxesByToken(Mapping[str, str]):
    """The mailbox of each token that a token server considers valid at the moment."""

    def __init__(self, server: TokenServer) -> None:
        self._server = server

    def __getitem__(self, token: str) -> str:
        if (mailbox := self._server.mailbox_of(token)) is None:
            raise KeyError(token)
        return mailbox

    def __iter__(self) -> Iterator[str]:
        return iter(self._server.access_tokens)

    def __len__(self) -> int:
        return len(self._server.access_tokens)


def _public_key(certificate: x509.Certificate) -> str:
    return certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class _Handler(BaseHTTPRequestHandler):
    peer: TokenServer

    def do_GET(self) -> None:
        """Authorize."""
        parts = urlsplit(self.path)
        query = single(parts.query)
        self.peer.requests.append((parts.path, query))
        self.send_response(302)
        self.send_header("Location", self.peer.authorize(query))
        self.end_headers()

    def do_POST(self) -> None:
        """Grant tokens."""
        path = urlsplit(self.path).path
        form = single(self.rfile.read(int(self.headers["Content-Length"] or 0)).decode())
        self.peer.requests.append((path, form))
        status, body = 200, b""
        if self.peer.answer:
            status, body = self.peer.answer
        else:
            try:
                body = json.dumps(self.peer.token(path, form)).encode()
            except Denied as denied:
                status, body = 400, json.dumps(denied.body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status // 100 == 3:
            self.send_header("Location", f"{self.peer.url}/elsewhere/token")
        self.end_headers()
        if self.peer.seconds_per_byte is None:
            self.wfile.write(body)
            return
        with suppress(OSError):  # the portal has given up
            for byte in body[: len(body) // 2]:
                self.wfile.write(bytes([byte]))
                sleep(self.peer.seconds_per_byte)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def single(encoded: str) -> dict[str, str]:
    """Return the parameters, each of which may be there only once (RFC 6749, section 3.2)."""
    assert all(len(values) == 1 for values in parse_qs(encoded, keep_blank_values=True).values()), encoded
    return {name: values[-1] for name, values in parse_qs(encoded, keep_blank_values=True).items()}


@contextmanager
def running(server: TokenServer | None = None) -> Iterator[TokenServer]:
    """Run a token server."""
    server = server or TokenServer()
    handler = type("Handler", (_Handler,), {"peer": server})
    with ThreadingHTTPServer(("127.0.0.1", server.port), handler) as http:
        http.daemon_threads = True
        server.port = http.server_port
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
