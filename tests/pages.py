"""Reading pages and posting forms as a browser does."""

import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

TENANT_PAGES = (  # below /tenants/<domain>/
    *("overview", "deliveries", "mail-server", "recipients", "notifications", "templates", "brand"),
    *("connect", "keys", "audit"),
)
PASSWORD = "a long enough password"
HTMX = {"HX-Request": "true"}


def csrf_token(page: str) -> str:
    """Return the token that the page's forms carry."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert found, "the page has no form with a token"
    return found[1]


def post(
    browser: FlaskClient, page: str, action: str | None = None, *, htmx: bool = False, **values: Any
) -> TestResponse:
    """Open `page` and post its form, to `action` where that is another address, and return the answer."""
    token = csrf_token(browser.get(page).get_data(as_text=True))
    data = {"csrf_token": token, **values}
    return browser.post(action or page, data=data, headers=HTMX if htmx else None, buffered=True)
