"""Asks the portal, through its public URL, what it received.

The path has a token, which is signed with the secret key and valid for a minute. The portal shows nothing without it,
stores nothing, and the answer has nothing that the one who asks does not know already, apart from the proxy's headers.
"""

import json
import secrets
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer

from portal import config

MAX_AGE: Final = 60  # seconds
TIMEOUT: Final = 8.0  # seconds
MAX_BYTES: Final = 10_000
# A client could send these. They are of no client: networks and names for documentation (RFC 5737, RFC 2606).
FORGED_CLIENT, FORGED_HOST = "192.0.2.77", "forged.invalid"


class NoEcho(Exception):
    """The portal did not answer. The text says what did."""


def is_valid(token: str) -> bool:
    """Return whether the token was made with a secret key of this portal, within a minute."""
    try:
        _serializer().loads(token, max_age=MAX_AGE)
    except BadSignature:  # also for one that is too old
        return False
    return True


def fetch(url: str) -> Mapping[str, Any]:
    """Return what the portal received, at its public URL. Raise NoEcho.

    The certificate is not looked at here: another check does that, and no secret is sent.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port)
    headers = {"Host": parts.netloc, "X-Forwarded-For": FORGED_CLIENT, "X-Forwarded-Host": FORGED_HOST}
    try:
        connection.request("GET", f"/doctor/{_serializer().dumps(secrets.token_urlsafe(16))}", headers=headers)
        response = connection.getresponse()
        body = response.read(MAX_BYTES)
    except ssl.SSLError:
        raise NoEcho("TLS could not be negotiated.") from None
    except HTTPException:
        raise NoEcho("The answer is not HTTP.") from None
    except OSError as error:
        raise NoEcho(f"It was not reached: {error.strerror or 'no answer in time'}.") from None
    finally:
        connection.close()
    if response.status != 200:
        raise NoEcho(f"It was answered with status {response.status}.")
    try:
        received = json.loads(body)
        return {name: received[name] for name in ("scheme", "host", "client", "forwarded_for", "trusted_proxies")}
    except (ValueError, TypeError, KeyError):
        raise NoEcho("Something else than the portal answered.") from None


def _connection(scheme: str, host: str, port: int | None) -> HTTPConnection:
    if scheme == "http":
        return HTTPConnection(host, port, timeout=TIMEOUT)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=context)


def _serializer() -> URLSafeTimedSerializer:
    current, *earlier = config.current().secret_keys
    return URLSafeTimedSerializer([*reversed(earlier), current], salt="doctor")
