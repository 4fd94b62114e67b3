"""Known browsers: a long-lived signed cookie says which accounts have signed in with this browser.

Their rate limits are separate, so that strangers who guess an account's password do not lock its owner out.
"""

from typing import Final

from flask import Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from portal import config
from portal.accounts.rate_limits import account_digest
from portal.crypto import new_token

MAX_AGE: Final = 365 * 24 * 3600  # seconds
MAX_ACCOUNTS: Final = 5  # in one browser


def find(cookie: str | None, account: str) -> str:
    """Return the id of the browser in which the account has signed in before, or "" if the cookie does not say so."""
    return _read(cookie).get(account_digest(account).hex(), "")


def remember(response: Response, cookie: str | None, account: str) -> Response:
    """Store in the browser that the account has signed in with it."""
    digest, browsers = account_digest(account).hex(), _read(cookie)
    browsers = {digest: browsers.pop(digest, None) or new_token()} | browsers  # the latest account first
    value, is_https = _serializer().dumps(dict(list(browsers.items())[:MAX_ACCOUNTS])), config.current().is_https
    response.set_cookie(cookie_name(), value, MAX_AGE, secure=is_https, httponly=True, samesite="Lax")
    return response


def cookie_name() -> str:
    """Return the name of the cookie."""
    return "__Host-known-browser" if config.current().is_https else "known-browser"


def _read(cookie: str | None) -> dict[str, str]:
    try:
        browsers: dict[str, str] = _serializer().loads(cookie or "", max_age=MAX_AGE)
    except BadSignature:
        return {}
    return browsers


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(config.current().secret_keys[::-1], salt="known-browser")  # the last one signs
