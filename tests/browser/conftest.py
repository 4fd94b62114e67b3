"""Fixtures of the browser tests: the portal on a port, and a real Chromium."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright
from werkzeug.serving import make_server
from werkzeug.wsgi import ClosingIterator

from portal import create_app
from portal.config import Settings
from portal.demo.mail_catcher import run_catcher
from portal.demo.mailbox import Mailbox
from tests.browser.chromium import MISSING, launch, program
from tests.browser.usable import HEIGHT
from tests.conftest import close_connections, make_account, make_passwords_cheap, make_signed_in_account
from tests.pages import PASSWORD
from tests.tenant_fixtures import key, peer, post, working_tenant

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["key", "peer", "post", "working_tenant"]

# Content that moves after the page has loaded is an error in the console, unless a click, a key, a new size of the
# window or the answer to one of them moved it. The browser's own `hadRecentInput` counts from when the input was made,
# and a busy machine draws its effect long after that: so half a second is counted from the second frame after it. What
# was there at the load event is drawn by then too.
SHIFTS = """
let watchedFrom = Infinity, changes = 0;
const watchAfter = (milliseconds) => {
    const change = ++changes;
    watchedFrom = Infinity;
    requestAnimationFrame(() => requestAnimationFrame(() => {
        if (change === changes) watchedFrom = performance.now() + milliseconds;
    }));
};
addEventListener("load", () => watchAfter(0));
for (const type of ["pointerdown", "click", "keydown", "keyup", "resize"])
    addEventListener(type, () => watchAfter(500), {capture: true});
for (const type of ["htmx:beforeSwap", "htmx:afterSettle"])
    addEventListener(type, ({detail}) => { if (detail.requestConfig?.triggeringEvent?.isTrusted) watchAfter(500); });
new PerformanceObserver((list) => {
    for (const shift of list.getEntries())
        if (!shift.hadRecentInput && shift.value > 0.01 && shift.startTime > watchedFrom)
            console.error("layout shift", shift.value, ...shift.sources.map(({node}) => node?.outerHTML?.slice(0, 99)));
}).observe({type: "layout-shift"});
"""
NO_FAULTS = (
    "Failed to load resource",  # an answer with 422 and the like: `on_response` decides about answers
    "Blocked script execution in",  # SHIFTS itself, in the frame of a mail
)
PIECES = {"script", "stylesheet", "image", "font"}

OpenPage = Callable[..., Page]

expect.set_options(timeout=20_000)  # milliseconds: a busy machine is no fault of a page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this folder as browser tests."""
    for item in items:
        if "browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A Chromium. Without one the tests are skipped; in CI they fail.

    It ends with the last test in this folder: as long as it is there, no other event loop can run in this thread.
    """
    if program() is None:
        pytest.fail(MISSING) if os.environ.get("CI") == "true" else pytest.skip(MISSING)
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture(scope="session")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Mailbox:
    """The email that the mail catcher received; the portal shows it at /demo/mail."""
    return Mailbox(tmp_path_factory.mktemp("caught"))


@pytest.fixture(scope="session")
def catcher_port(mailbox: Mailbox) -> Iterator[int]:
    """The port of a mail catcher on 127.0.0.1, without encryption or authentication."""
    with run_catcher(mailbox, 0) as port:
        yield port


@pytest.fixture(scope="session")
def live_app(built_app: Flask, settings: Settings, mailbox: Mailbox) -> Iterator[Flask]:
    """The portal on a real port, which is in its PORTAL_URL."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        app = create_app(settings.model_copy(update={"portal_url": url, "demo_mail_dir": mailbox.folder}))
        make_passwords_cheap(app)
        server = make_server("127.0.0.1", 0, _closing(app), threaded=True, fd=bound.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield app
        server.shutdown()
        thread.join()
        server.server_close()
        close_connections(app)


def _closing(app: Flask) -> "WSGIApplication":
    """Close each answer: Werkzeug's server leaves it, and its file, open if the browser resets the connection."""

    def parts(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        with closing(ClosingIterator(app(environ, start_response))) as answer:
            yield from answer

    return parts


@pytest.fixture
def portal_url(app: Flask, live_app: Flask) -> str:
    """The URL of the portal, with an empty database."""
    url: str = live_app.extensions["settings"].portal_url
    return url


@pytest.fixture
def open_page(chromium: Browser, portal_url: str) -> Iterator[OpenPage]:
    """A function that opens a page in a new browser. The test fails if a console shows errors."""
    faults: list[str] = []
    with ExitStack() as contexts:

        def open_page(path: str = "/", *, width: int = 1440, dark: bool = False, cookies: Sequence[Any] = ()) -> Page:
            context = chromium.new_context(
                base_url=portal_url,
                viewport={"width": width, "height": HEIGHT},
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",  # so that nothing is looked at half-way from one colour to another
            )
            contexts.callback(context.close)
            context.add_init_script(SHIFTS)
            context.add_cookies(cookies)
            page = context.new_page()
            _watch(page, faults)
            page.goto(path)
            return page

        yield open_page
    assert not faults, "\n".join(faults)


@pytest.fixture
def sign_in(open_page: OpenPage, live_app: Flask, portal_url: str) -> OpenPage:
    """A function that creates an account, signs in with it in a new browser, and returns the first page.

    With `path` it returns that page instead, as the second one. With `by_form` it fills in the sign-in form; otherwise
    the browser is given the session cookie, which takes a tenth of the time.
    """

    def sign_in(
        email: str,
        path: str | None = None,
        *,
        administers: str | None = None,
        system: bool = False,
        by_form: bool = False,
        **options: object,
    ) -> Page:
        if by_form:
            make_account(live_app, email, administers=administers, system=system)
            page = open_page("/sign-in", **options)
            page.get_by_label("Email").fill(email)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
        else:
            client = make_signed_in_account(live_app, email, administers=administers, system=system)
            if path:
                client.get("/", follow_redirects=True)  # the first page, with the reminder that is shown once
            session = client.get_cookie("session")
            assert session is not None
            cookie = {"name": session.key, "value": session.value, "url": portal_url}
            page = open_page(path or "/", cookies=[cookie], **options)
        page.wait_for_load_state()
        return page

    return sign_in


def _watch(page: Page, faults: list[str]) -> None:
    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(NO_FAULTS):
            faults.append(f"{page.url}: console: {message.text}")

    def on_response(response: Response) -> None:
        broken_piece = response.status >= 400 and response.request.resource_type in PIECES
        if broken_piece or response.status >= 500:
            faults.append(f"{page.url}: {response.status} from {response.url}")

    def on_failure(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page went on to another one
            faults.append(f"{page.url}: {request.url}: {request.failure}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("response", on_response)
    page.on("requestfailed", on_failure)
