"""SASL mechanisms (RFC 4954): how each responds to the mail server's challenges, in order."""

import hmac
from collections.abc import Callable

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
