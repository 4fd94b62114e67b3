"""Ways to sign in (RFC 4954): what each answers to a mail server's challenges, in order."""

import hmac
from collections.abc import Callable

Answers = list[Callable[[bytes], bytes]]


def plain(username: bytes, password: bytes) -> Answers:
    """RFC 4616."""
    return [lambda _: b"\0" + username + b"\0" + password]


def login(username: bytes, password: bytes) -> Answers:
    """The Internet-Draft draft-murchison-sasl-login: user name and password, one after the other."""
    return [lambda _: username, lambda _: password]


def cram_md5(username: bytes, password: bytes) -> Answers:
    """RFC 2195."""
    return [lambda challenge: username + b" " + hmac.new(password, challenge, "md5").hexdigest().encode()]


BEST_FIRST = ("PLAIN", "LOGIN", "CRAM-MD5")
MECHANISMS = dict(zip(BEST_FIRST, (plain, login, cram_md5), strict=True))
