"""The check of every page finds what is wrong with one, and nothing on a page that is right."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.usable import assert_usable

PAGE = """
<!doctype html><html lang="en"><head><title>Page</title><meta name="viewport" content="width=device-width"><style>
    :root {{ color-scheme: light dark }} body {{ color: #000; background: #fff }} a {{ color: inherit }}
    @media (prefers-color-scheme: dark) {{ body {{ color: #fff; background: #000 }} }}
    :focus-visible {{ outline: 3px solid }} {style}
</style></head><body><main><h1>Page</h1><p>Some words <a href="#a">and a link</a></p>{html}</main></body></html>
"""
HOLDS_THE_FOCUS = """
    <button onkeydown="event.preventDefault()">A</button><button>B</button>
"""
FAULTS = {
    "light, 360px.*color-contrast": ("@media (width < 400px) { p { color: #ddd } }", ""),
    "dark, 360px.*color-contrast": ("@media (prefers-color-scheme: dark) { p { color: #333 } }", ""),
    "light, 768px.*color-contrast": (
        "b { display: none; color: #eee } @media (width > 500px) { b { display: block } }",
        "<b>Some words</b>",
    ),
    "light, 1440px.*color-contrast": ("@media (width > 1000px) { p { opacity: .2 } }", ""),
    "dark, 1440px.*color-contrast": (
        "@media (width > 1000px) and (prefers-color-scheme: dark) { main { background: #bbb } }",
        "",
    ),
    "light, 360px.*image-alt": ("", '<img src="data:,">'),
    "light, 1440px.*label": ("@media (width < 1000px) { input { display: none } }", "<input>"),
    "at 360px can be scrolled sideways": ("div { width: 500px }", "<div>Wide</div>"),
    "no outline: <button>": ("button:focus-visible { outline: none }", "<button>A</button>"),
    "out of sight: <button": ("button { position: fixed; left: -900px }", "<button>A</button>"),
    "Tab does not reach.*<button>B": ("", HOLDS_THE_FOCUS),
}


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page."""
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(page: Page, fault: str) -> None:
    style, html = FAULTS[fault]
    page.set_content(PAGE.format(style=style, html=html))
    with pytest.raises(AssertionError, match=f"(?s){fault}"):
        assert_usable(page)


def test_nothing_is_found_on_a_page_that_is_right(page: Page) -> None:
    day = '<label>Day <input type="datetime-local"></label>'
    frame = '<iframe title="Frame" srcdoc="<p>Words <a href=#>and a link</a></p>"></iframe>'
    page.set_content(PAGE.format(style="", html=day + frame + "<button>A</button>"))
    assert_usable(page)
