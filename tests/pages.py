"""Reading pages and posting forms as a browser does."""

import re
from html.parser import HTMLParser
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

TENANT_PAGES = (  # below /tenants/<domain>/
    *("overview", "deliveries", "mail-server", "recipients", "notifications", "templates", "appearance"),
    *("connect", "keys", "audit", "people"),
)
PASSWORD = "a long enough password"
WRONG_PASSWORD = "wrong wrong wrong"
HTMX = {"HX-Request": "true"}


def csrf_token(page: str) -> str:
    """Return the CSRF token of the page's forms."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert found, "the page has no form with a token"
    return found[1]


def post(
    browser: FlaskClient, page: str, action: str | None = None, *, htmx: bool = False, **values: Any
) -> TestResponse:
    """Open `page` and post its form, to `action` if given, and return the response."""
    token = csrf_token(browser.get(page).get_data(as_text=True))
    data = {"csrf_token": token, **values}
    return browser.post(action or page, data=data, headers=HTMX if htmx else None, buffered=True)


def forge(signed: str) -> str:
    """Return a signed value with another signature. Changing its last character may leave the same bytes."""
    value, _, signature = signed.rpartition(".")
    return f"{value}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


class FormReader(HTMLParser):
    """Reads the fields of the form with this id, as a browser would submit them."""

    def __init__(self, form_id: str) -> None:
        super().__init__()
        self.form_id, self.inside, self.values = form_id, False, dict[str, str]()
        self.select = self.textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read a control, or the beginning of one."""
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "form":
            self.inside = given.get("id") == self.form_id
        if not self.inside:
            return
        if tag == "input" and name and (given.get("type") not in {"checkbox", "radio"} or "checked" in given):
            self.values[name] = value
        if tag == "option" and self.select and ("selected" in given or self.select not in self.values):
            self.values[self.select] = value
        if tag in {"select", "textarea"}:
            setattr(self, tag, name)
        if tag == "textarea":
            self.values[name] = ""

    def handle_data(self, data: str) -> None:
        """Read the text of a text area."""
        if self.textarea:
            self.values[self.textarea] += data

    def handle_endtag(self, tag: str) -> None:
        """Leave a form or a control."""
        if tag == "form":
            self.inside = False
        if tag in {"select", "textarea"}:
            setattr(self, tag, "")


def read_form(html: str, form_id: str) -> dict[str, str]:
    """Return the values of the page's form, by the names of its fields."""
    reader = FormReader(form_id)
    reader.feed(html)
    return {name: value.removeprefix("\r\n").removeprefix("\n") for name, value in reader.values.items()}


def guesses(browser: FlaskClient, *made: tuple[str, str], path: str = "/sign-in") -> list[TestResponse]:
    """Submit a wrong password for each of these accounts, each time from an IP address."""
    token = csrf_token(browser.get(path).get_data(as_text=True))
    return [
        browser.post(
            path,
            data={"csrf_token": token, "email": email, "password": WRONG_PASSWORD},
            environ_overrides={"REMOTE_ADDR": ip_address},
        )
        for email, ip_address in made
    ]
