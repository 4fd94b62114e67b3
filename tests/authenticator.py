"""An authenticator app, and the pages that ask for its codes."""

import re
import time
from typing import Any

from flask.testing import FlaskClient
from passlib.totp import TOTP
from werkzeug.test import TestResponse

from tests.pages import PASSWORD, csrf_token, post

SET_UP = "/account/two-factor"
STEP = 30  # seconds
TIME_TO_CHECK = 4.0  # seconds: a browser takes longer than a test client, on a busy machine above all


class Authenticator:
    """An authenticator app with the secret that the page shows."""

    def __init__(self, page: str) -> None:
        found = re.search(r'id="totp-key">([^<]+)<', page)
        assert found, "the page shows no secret"
        self.totp = TOTP(key=found[1].strip())

    def code(self, step: int = 0) -> str:
        """Return the code of this time step, or of one before or after it, early enough for the portal to check it."""
        if (left := STEP - time.time() % STEP) < TIME_TO_CHECK:
            time.sleep(left)
        return str(self.totp.generate(time.time() + step * STEP).token)


def set_up(browser: FlaskClient, step: int = -1) -> tuple[Authenticator, list[str]]:
    """Set up two-factor authentication and return the authenticator and the recovery codes."""
    page = browser.get(SET_UP).get_data(as_text=True)
    phone = Authenticator(page)
    answer = browser.post(SET_UP, data={"csrf_token": csrf_token(page), "code": phone.code(step)})
    return phone, recovery_codes(answer)


def recovery_codes(answer: TestResponse) -> list[str]:
    """Return the codes that the page shows."""
    found = re.search(r'id="recovery-codes">([^<]+)<', answer.get_data(as_text=True))
    assert found, answer.get_data(as_text=True)
    return found[1].split()


def give_password(browser: FlaskClient, email: str, password: str = PASSWORD, **more: Any) -> TestResponse:
    """Submit the password."""
    return post(browser, "/sign-in", email=email, password=password, **more)


def give_code(browser: FlaskClient, code: str) -> TestResponse:
    """Submit the code."""
    return post(browser, "/sign-in/code", code=code)


def is_signed_in(browser: FlaskClient) -> bool:
    """Return whether the browser is signed in."""
    return browser.get("/account").status_code == 200
