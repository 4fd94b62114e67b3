"""The OpenID provider: its documents, where a person signs in, and who did (OpenID Connect Core and Discovery 1.0).

Each process caches the documents. Requests are bounded in time, size and number, and follow no redirects.
"""

import time
from typing import Any, Final, NamedTuple

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from requests import RequestException, Session

from portal import bounded_requests, config
from portal.accounts.single_sign_on import id_token
from portal.accounts.single_sign_on.id_token import Claims, SignInRejected, UnknownKey
from portal.bounded_requests import bounded
from portal.setting_formats import is_provider_url
from portal.web.slots import Bound, Slots

SCOPE: Final = "openid email"
REDIRECT_PATH: Final = "/sign-in/single-sign-on/callback"
MAX_AGE: Final = 3600.0  # seconds for which a document is used
KEY_RETRY_INTERVAL: Final = 60.0  # seconds before an unknown key has the keys fetched again
RETRY_INTERVAL: Final = 5.0  # seconds after the provider did not respond, before anyone asks it again
MAX_DOCUMENTS: Final = 10
ABOUT_EMAIL: Final = {"email", "email_verified", "xms_edov"}  # the claims
# A provider that does not respond holds no more than these of a process's threads.
REQUESTS: Final = Slots(Bound(per_account=4, total=4), waiting=Bound(per_account=4, total=4), max_wait=3)


class ProviderUnreachable(Exception):
    """The provider did not respond, or not as OpenID Connect says. The text is for the log."""


class Endpoints(NamedTuple):
    """What the provider's discovery document says."""

    authorization: str
    token: str
    keys: str
    userinfo: str | None
    names_itself: bool  # in the redirect (RFC 9207)
    takes_secret_in_form: bool


def redirect_url() -> str:
    """Return where the provider sends a person's browser back to. It has to be registered with the provider."""
    return f"{config.current().portal_url}{REDIRECT_PATH}"


def endpoints() -> Endpoints:
    """Return the provider's endpoints. Raise ProviderUnreachable."""
    issuer = _issuer()
    document = _document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if document.get("issuer") != issuer:  # Discovery 1.0, section 4.3
        raise ProviderUnreachable(f"The discovery document is another issuer's: {str(document.get('issuer'))[:200]!r}")
    methods = document.get("token_endpoint_auth_methods_supported") or ()
    return Endpoints(
        _url(document, "authorization_endpoint"),
        _url(document, "token_endpoint"),
        _url(document, "jwks_uri"),
        _url(document, "userinfo_endpoint") if document.get("userinfo_endpoint") else None,
        document.get("authorization_response_iss_parameter_supported") is True,
        isinstance(methods, list) and "client_secret_post" in methods,
    )


def check() -> None:
    """Fetch the provider's documents. Raise ProviderUnreachable."""
    if not _document(endpoints().keys).get("keys"):
        raise ProviderUnreachable("The provider has no keys.")


def begin(state: str, nonce: str, code_verifier: str) -> str:
    """Return the URL at which the person signs in. Raise ProviderUnreachable."""
    with REQUESTS.hold():
        found = endpoints()
    with _app(found) as app:
        url, _ = app.create_authorization_url(
            found.authorization, state=state, nonce=nonce, code_verifier=code_verifier
        )
    return str(url)


def redeem(code: str, code_verifier: str, nonce: str, named_issuer: str | None) -> Claims:
    """Return what the provider says about who signed in. Raise ProviderUnreachable or SignInRejected.

    Args:
        code: with which the person's browser came back.
        code_verifier: that of the request (RFC 7636).
        nonce: that of the request.
        named_issuer: the `iss` with which the browser came back (RFC 9207).
    """
    with REQUESTS.hold():
        found = endpoints()
        if named_issuer != _issuer() and (found.names_itself or named_issuer is not None):
            raise SignInRejected("The redirect is another issuer's.")
        granted = _granted(found, code, code_verifier)
        claims = _verified(found, granted.get("id_token"), nonce)
        if "email" not in claims and found.userinfo:
            claims = _with_userinfo(found.userinfo, claims, granted.get("access_token"))
        return claims


def _verified(found: Endpoints, token: object, nonce: str) -> Claims:
    settings = config.current()
    for max_age in (MAX_AGE, KEY_RETRY_INTERVAL):
        keys = _document(found.keys, max_age).get("keys")
        try:
            return id_token.verify(token, keys, _issuer(), settings.sso_client_id or "", nonce)
        except UnknownKey:  # the provider may have a new one
            continue
    raise SignInRejected("The ID token is signed with an unknown key.")


def _granted(found: Endpoints, code: str, code_verifier: str) -> dict[str, Any]:
    try:
        with _app(found) as app:
            granted = app.fetch_token(found.token, code=code, code_verifier=code_verifier)
    except OAuthError as error:
        raise SignInRejected(f"The provider refused the code: {str(error.error)[:80]!r}") from None
    except (RequestException, OSError) as error:
        raise ProviderUnreachable(f"The token endpoint did not respond: {type(error).__name__}") from None
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise ProviderUnreachable("The response of the token endpoint is not valid.") from None
    return dict(granted)


def _with_userinfo(url: str, claims: Claims, access_token: object) -> Claims:
    """Add the email address, which some providers do not put into an ID token (Core 1.0, section 5.4).

    What the ID token says about an email address is not about this one.
    """
    userinfo = _fetch(url, {"Authorization": f"Bearer {access_token}"})
    if userinfo.get("sub") != claims["sub"]:  # section 5.3.2
        raise SignInRejected("The userinfo is another person's.")
    others = {name: value for name, value in claims.items() if name not in ABOUT_EMAIL}
    return {**others, **{name: userinfo[name] for name in ("email", "email_verified") if name in userinfo}}


def _app(found: Endpoints) -> Any:
    settings = config.current()
    secret = settings.sso_client_secret.get_secret_value() if settings.sso_client_secret else None
    method = "client_secret_post" if found.takes_secret_in_form else "client_secret_basic"
    session = OAuth2Session(
        settings.sso_client_id,
        secret,
        token_endpoint_auth_method=method if secret else "none",
        scope=SCOPE,
        redirect_uri=redirect_url(),
        code_challenge_method="S256",
        default_timeout=bounded_requests.TIMEOUTS,
    )
    return bounded(session)


def _issuer() -> str:
    return config.current().sso_issuer or ""


def _url(document: dict[str, Any], name: str) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not is_provider_url(url.partition("?")[0]):
        raise ProviderUnreachable(f"The discovery document has no usable {name}.")
    return url


_documents: dict[str, tuple[float, dict[str, Any]]] = {}  # by URL: when it was fetched, and its content
_silent_until: dict[str, float] = {}  # by URL: what could not be fetched


def _document(url: str, max_age: float = MAX_AGE) -> dict[str, Any]:
    now = time.monotonic()
    fetched_at, document = _documents.get(url, (-MAX_AGE, {}))
    if document and now - fetched_at < max_age:
        return document
    if now < _silent_until.get(url, 0.0):
        raise ProviderUnreachable(f"{url} did not respond.")
    for cache in (_documents, _silent_until):
        if len(cache) >= MAX_DOCUMENTS:
            cache.clear()
    try:
        document = _fetch(url)
    except ProviderUnreachable:
        _silent_until[url] = time.monotonic() + RETRY_INTERVAL  # so that not every thread waits for it
        raise
    _documents[url] = time.monotonic(), document
    return document


def _fetch(url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    try:
        with bounded(Session()) as session:
            response = session.get(url, headers=headers, timeout=bounded_requests.TIMEOUTS)
        document = response.json() if response.ok else None
    except (RequestException, OSError) as error:
        raise ProviderUnreachable(f"{url} did not respond: {type(error).__name__}") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProviderUnreachable(f"{url} responded {response.status_code}, without a JSON object.")
    return document
