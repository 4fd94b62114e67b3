"""Passwords: their rules (NIST SP 800-63B-4, section 3.1.1.2), their hashes, and those of earlier versions."""

import base64
import hmac
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from threading import Lock, get_native_id
from typing import Any, Final, Self, TypeVar

from flask_babel import gettext, lazy_gettext
from flask_security import PasswordUtil
from passlib.context import CryptContext
from passlib.utils.handlers import PrefixWrapper
from zxcvbn import zxcvbn

from portal.web.slots import Bound, Slots

MIN_LENGTH: Final = 10
PASSWORD_HELP: Final = lazy_gettext("At least %(least)s characters. Use several words, for example.", least=MIN_LENGTH)
MAX_ESTIMATED_LENGTH: Final = 72  # characters; more of them can only make a password stronger
MIN_SCORE: Final = 3  # of 4: more than 10^8 guesses
# A hash takes 64 MiB and all cores for a moment.
HASHING: Final = Slots(Bound(per_account=1, total=1), waiting=Bound(per_account=3, total=3), max_wait=6)
NICENESS: Final = 5  # of the threads that hash: on a busy processor other requests get three quarters

Result = TypeVar("Result")


class PasswordRules(PasswordUtil):
    """Rejects passwords that are short, common, or made of the account's email address."""

    _estimating = Lock()  # zxcvbn keeps its caller's words in a variable of its module

    def validate(self, password: str, is_register: bool, **kwargs: Any) -> tuple[list[str] | None, str]:  # noqa: ARG002
        """Return what is wrong with the password, or None, and the normalized password. `kwargs`: `user` or `email`."""
        normalized = self.normalize(password)
        if len(normalized) < MIN_LENGTH:
            return [gettext("A password needs at least %(least)s characters.", least=MIN_LENGTH)], normalized
        email = kwargs["email"] if "email" in kwargs else kwargs["user"].email
        with self._estimating:
            estimate = zxcvbn(normalized[:MAX_ESTIMATED_LENGTH], [email, *email.replace("@", ".").split(".")])
        if estimate["score"] < MIN_SCORE:
            return [
                gettext("This password is easy to guess. Make it longer, for example with several words.")
            ], normalized
        return None, normalized


class PasswordContext(CryptContext):  # type: ignore[misc]
    """Hashes one password at a time, whether the account exists or not. Raises `Busy` if others are waiting already."""

    def hash(self, *arguments: Any, **settings: Any) -> str:
        """Return the hash of a password."""
        return str(_compute(super().hash, *arguments, **settings))

    def verify(self, *arguments: Any, **settings: Any) -> bool:
        """Return whether a hash is the password's."""
        return bool(_compute(super().verify, *arguments, **settings))


def _compute(function: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    """Return the function's result, computed in a thread that gives way to everything else on the machine."""
    with HASHING.hold(), ThreadPoolExecutor(1, "password", _give_way) as executor:
        return executor.submit(function, *arguments, **settings).result()


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a priority is the whole process's; argon2's own threads inherit it
        thread = get_native_id()  # one that is nicer already stays so: only root could change that
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


class SecretKeyHash(PrefixWrapper):  # type: ignore[misc]
    """The hashes of earlier versions, marked by migration 0003: argon2 of an HMAC with the SECRET_KEY of that time."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        super().__init__("argon2_with_secret_key", "argon2", prefix="secret-key:")
        self._secret_keys = tuple(key.encode() for key in secret_keys)

    def using(self, **_settings: Any) -> Self:
        """Return a copy: no new hash is made like this, so there is nothing to set."""
        return copy(self)

    def verify(self, secret: str, hash: str, **_: Any) -> bool:  # noqa: A002 (Passlib's signature)
        """Return whether the hash is the password's, with any of the keys."""
        digests = (hmac.digest(key, secret.encode(), "sha512") for key in self._secret_keys)
        return any(super(SecretKeyHash, self).verify(base64.b64encode(digest), hash) for digest in digests)
