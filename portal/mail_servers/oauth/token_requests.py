"""Requests to a provider's token server, through Authlib: bounded in time and size, and without redirects."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import AssertionSession, OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from joserfc.jwk import RSAKey
from requests import RequestException, exceptions

from portal.bounded_requests import TIMEOUTS, bounded
from portal.database import clock
from portal.mail_servers.oauth.identity_providers import GrantType, IdentityProvider, redirect_url, scope_of, token_url
from portal.mail_servers.oauth.token_errors import invalid_response, rejection, unreachable

RETRY_INTERVAL: Final = 5.0  # seconds after a token server did not respond, before anyone asks it again
MAX_TOKEN_LENGTH: Final = 20_000  # characters; Microsoft's have 1,500 to 3,000
DEFAULT_LIFETIME: Final = 3600.0  # seconds, if the provider says nothing (RFC 6749, section 5.1)
MAX_LIFETIME: Final = 86_400.0
ASSERTION_LIFETIME: Final = 600  # seconds


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to ask a provider for, and with which credentials. `repr` leaves secrets out."""

    provider: IdentityProvider
    grant_type: GrantType
    client_id: str
    client_secret: str = field(default="", repr=False)
    private_key: str | None = field(default=None, repr=False)
    certificate: str | None = None
    directory: str | None = None
    mailbox: str | None = None
    refresh_token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where to ask."""
        return token_url(self.provider, self.directory)


@dataclass(frozen=True, slots=True)
class GrantedTokens:
    """What a provider granted. `lifetime` is in seconds; `account` is the account that signed in, if it is known."""

    access_token: str = field(repr=False)
    lifetime: float
    refresh_token: str | None = field(default=None, repr=False)
    account: str | None = None


def fetch(request: TokenRequest) -> GrantedTokens:
    """Return new tokens. Raise SmtpFailure at the stage TOKEN."""
    match request.grant_type:
        case GrantType.AUTHORIZATION_CODE:
            values = {"refresh_token": request.refresh_token}
            return _tokens(request, app_session(request), lambda app: app.refresh_token(request.url, **values))
        case GrantType.CLIENT_CREDENTIALS:
            values = {"grant_type": "client_credentials", "scope": scope_of(request.provider, by_person=False)}
            if request.certificate:  # Microsoft wants it; with a secret Authlib adds it
                values["client_id"] = request.client_id
            return _tokens(request, app_session(request), lambda app: app.fetch_token(request.url, **values))
    assertion = AssertionSession(
        request.url,
        issuer=request.client_id,
        subject=request.mailbox,
        key=RSAKey.import_key(request.private_key or ""),
        header={"alg": "RS256"},
        claims={**_validity(), "scope": scope_of(request.provider, by_person=False)},  # Google wants the scope signed
        default_timeout=TIMEOUTS,
    )
    assertion.oauth_error_class = OAuthError  # its own accepts no quotes in a description, as Google sends them
    return _tokens(request, bounded(assertion), lambda account: account.refresh_token())


def redeem_code(request: TokenRequest, code: str, code_verifier: str) -> GrantedTokens:
    """Return the tokens for the code with which a person's browser came back. Raise SmtpFailure at the stage TOKEN."""
    values = {"grant_type": "authorization_code", "code": code, "code_verifier": code_verifier}
    return _tokens(request, app_session(request), lambda app: app.fetch_token(request.url, **values))


def app_session(request: TokenRequest) -> Any:
    """Return Authlib's session of the app, which proves who it is by its certificate or its secret."""
    by_certificate = request.private_key is not None and request.certificate is not None
    session = OAuth2Session(
        request.client_id,
        request.private_key if by_certificate else request.client_secret,
        token_endpoint_auth_method="private_key_jwt" if by_certificate else "client_secret_post",
        scope=scope_of(request.provider, by_person=True),
        redirect_uri=redirect_url(),
        code_challenge_method="S256",
        default_timeout=TIMEOUTS,
    )
    if by_certificate:
        session.register_client_auth_method(_certificate_proof(request))
    return bounded(session)


def _certificate_proof(request: TokenRequest) -> PrivateKeyJWT:
    """Return what signs with the certificate's key: "Microsoft identity platform certificate credentials"."""
    certificate = x509.load_pem_x509_certificate((request.certificate or "").encode())
    thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
    return PrivateKeyJWT(request.url, claims=_validity(), headers={"x5t#S256": thumbprint, "typ": "JWT"}, alg="PS256")


def _validity() -> dict[str, Any]:
    """Return from when to when an assertion is valid, by the database's clock: hosts' clocks can be wrong."""
    now = int(clock.now().timestamp())
    return {"iat": now, "exp": now + ASSERTION_LIFETIME}


_silent_until: dict[str, float] = {}  # by URL: token servers that did not respond, by the monotonic clock


def _tokens(request: TokenRequest, session: Any, ask: Callable[[Any], dict[str, Any]]) -> GrantedTokens:
    server = urlsplit(request.url).netloc
    if time.monotonic() < _silent_until.get(server, 0.0):  # so that not every thread waits for it
        raise unreachable(request.provider)
    try:
        with session:
            granted = ask(session)
    except OAuthError as error:
        raise rejection(request.provider, str(error.error), str(error.description or "")) from None
    except (RequestException, OSError) as error:
        if isinstance(error, exceptions.ConnectionError | exceptions.Timeout):
            _silent_until[server] = time.monotonic() + RETRY_INTERVAL
        raise unreachable(request.provider) from None
    # Neither JSON, nor what RFC 6749 says, such as an infinite lifetime; or a key that signs nothing.
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise invalid_response(request.provider) from None
    access_token, refresh_token = granted.get("access_token"), granted.get("refresh_token")
    if not _is_token(access_token) or str(granted.get("token_type", "")).lower() != "bearer":
        raise invalid_response(request.provider)
    return GrantedTokens(
        str(access_token),
        _lifetime(granted.get("expires_in")),
        refresh_token if _is_token(refresh_token) else None,
        _account(granted.get("id_token")),
    )


def _is_token(value: object) -> bool:
    """Return whether this can be a token (RFC 6750, section 2.1): visible ASCII, which a sign-in can carry."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TOKEN_LENGTH and all("!" <= char <= "~" for char in value)


def _lifetime(expires_in: object) -> float:
    try:
        return min(max(0.0, float(str(expires_in))), MAX_LIFETIME)  # in this order, not-a-number becomes 0
    except ValueError:
        return DEFAULT_LIFETIME


def _account(id_token: object) -> str | None:
    """Return the email address or username in an ID token.

    Its signature is not checked: it came from the token server itself (OpenID Connect Core, section 3.1.3.7).
    """
    payload = str(id_token or "").split(".")[1:2]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload[0] + "==")) if payload else {}
    except (ValueError, RecursionError):
        return None
    found = (claims.get("email") or claims.get("preferred_username")) if isinstance(claims, dict) else None
    return found if isinstance(found, str) and 3 <= len(found) <= 254 and "@" in found and found.isprintable() else None
