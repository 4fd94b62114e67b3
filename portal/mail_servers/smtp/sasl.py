"""SASL mechanisms (RFC 4954): how each responds to the mail server's challenges, in order."""

import hmac
import json
from collections.abc import Callable
from typing import NamedTuple

Responses = list[Callable[[bytes], bytes]]


def plain(username: bytes, password: bytes) -> Responses:
    """RFC 4616."""
    return [lambda _: b"\0" + username + b"\0" + password]


def login(username: bytes, password: bytes) -> Responses:
    """The Internet-Draft draft-murchison-sasl-login: username, then password."""
    return [lambda _: username, lambda _: password]


def cram_md5(username: bytes, password: bytes) -> Responses:
    """RFC 2195."""
    return [lambda challenge: username + b" " + hmac.new(password, challenge, "md5").hexdigest().encode()]


MECHANISMS = {"PLAIN": plain, "LOGIN": login, "CRAM-MD5": cram_md5}  # in order of preference


# Mechanisms with an access token of OAuth 2.0. Each returns two responses: the first one signs in. If the mail server
# rejects it, it may say why in a challenge, and rejects the sign-in only after the second response.


class TokenCredentials(NamedTuple):
    """What signs in to a mailbox. `repr` leaves the token out."""

    mailbox: str
    token: str
    host: str
    port: int

    def __repr__(self) -> str:
        return f"TokenCredentials({self.mailbox!r})"


def xoauth2(credentials: TokenCredentials) -> tuple[bytes, bytes]:
    """Google's "XOAUTH2 protocol", which Microsoft uses too."""
    return f"user={credentials.mailbox}\1auth=Bearer {credentials.token}\1\1".encode(), b""


def oauthbearer(credentials: TokenCredentials) -> tuple[bytes, bytes]:
    """RFC 7628, sections 3.1 and 3.2.3."""
    mailbox = credentials.mailbox.replace("=", "=3D").replace(",", "=2C")  # RFC 5801, section 4
    server = f"host={credentials.host}\1port={credentials.port}"
    return f"n,a={mailbox},\1{server}\1auth=Bearer {credentials.token}\1\1".encode(), b"\1"


# Microsoft offers only XOAUTH2, which Google documents for SMTP. OAUTHBEARER is the standard that others may offer.
TOKEN_MECHANISMS = {"XOAUTH2": xoauth2, "OAUTHBEARER": oauthbearer}  # in order of preference

_ERROR_FIELDS = ("status", "schemes", "scope")  # RFC 7628, section 3.2.2
MAX_ERROR_VALUE_LENGTH = 100  # characters


def describe_error(challenge: bytes) -> str:
    """Return what a mail server's error challenge says about the token, such as "status 401, schemes bearer"."""
    try:
        error = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(error, dict):
        return ""
    values = {name: error[name] for name in _ERROR_FIELDS if isinstance(error.get(name), str | int)}
    return ", ".join(f"{name} {str(value)[:MAX_ERROR_VALUE_LENGTH]}" for name, value in values.items())
