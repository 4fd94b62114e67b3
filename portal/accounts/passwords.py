"""Which passwords are taken: long enough, and none that is guessed early (NIST SP 800-63B-4, section 3.1.1.2)."""

from threading import Lock
from typing import Any, Final

from flask_babel import gettext, lazy_gettext
from flask_security import PasswordUtil
from zxcvbn import zxcvbn

MINIMUM_LENGTH: Final = 10
HELP: Final = lazy_gettext("At least %(least)s characters. Several words are good.", least=MINIMUM_LENGTH)
LONGEST_LOOKED_AT: Final = 72  # characters; what comes behind can only make it better
STRONG_ENOUGH: Final = 3  # of 4: more than 10^8 guesses


class Passwords(PasswordUtil):
    """Refuses passwords that are short, common, or made of the account's e-mail address."""

    _estimating = Lock()  # the estimator keeps the words of its caller in a variable of its module

    def validate(self, password: str, is_register: bool, **kwargs: Any) -> tuple[list[str] | None, str]:  # noqa: ARG002
        """Return what is wrong with the password, or None, and the password as it is compared.

        Args:
            password: as it was typed.
            is_register: Flask-Security's.
            kwargs: the account as `user`, or its `email`.
        """
        normal = self.normalize(password)
        if len(normal) < MINIMUM_LENGTH:
            return [gettext("A password needs at least %(least)s characters.", least=MINIMUM_LENGTH)], normal
        email = kwargs["email"] if "email" in kwargs else kwargs["user"].email
        with self._estimating:
            found = zxcvbn(normal[:LONGEST_LOOKED_AT], [email, *email.replace("@", ".").split(".")])
        if found["score"] < STRONG_ENOUGH:
            weak = gettext("This password would be guessed early. Make it longer, for example of several words.")
            return [weak], normal
        return None, normal
