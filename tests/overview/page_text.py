"""The text of an overview page, without tags."""

import re
from html import unescape

from flask.testing import FlaskClient

from tests.pages import HTMX


def page_text(browser: FlaskClient, path: str, *, htmx: bool = False) -> str:
    """Return the words of a page's main part, or of a fragment, one blank between them."""
    answer = browser.get(path, headers=HTMX if htmx else None)
    assert answer.status_code == 200
    page = answer.get_data(as_text=True).partition('<main id="main"')
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page[2] or page[0])).split())
