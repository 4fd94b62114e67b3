"""What journeys stand on: the portal on a port of its own, and a real Chromium in front of it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright
from werkzeug.serving import make_server

from portal import create_app, statements
from portal.accounts import registration
from portal.config import Settings
from portal.demo.catcher import catching
from portal.demo.mailbox import Mailbox
from portal.extensions import db
from portal.tenants import directory
from tests.browser.chromium import MISSING, launch, program
from tests.browser.keyboard import assert_reached_by_tab
from tests.pages import PASSWORD
from tests.ready import key, peer, post, ready

__all__ = ["key", "peer", "post", "ready"]

WIDTHS = (360, 768, 1440)  # a phone, a tablet, a desktop
HEIGHT = 900
# What moves by itself, once the page is there, is an error in the console. A click or a key may move things.
# A shift is told later than it happened, so that its own time decides whether the page was there.
SHIFTS = """
new PerformanceObserver((list) => {
    const { loadEventEnd } = performance.getEntriesByType("navigation")[0];
    for (const shift of list.getEntries())
        if (!shift.hadRecentInput && shift.value > 0.01 && loadEventEnd && shift.startTime > loadEventEnd)
            console.error("layout shift", shift.value, ...shift.sources.map(({node}) => node?.outerHTML?.slice(0, 99)));
}).observe({type: "layout-shift", buffered: true});
"""
# What axe-core looks at: everything, and in the dark what colours alone decide.
LOOKED_AT: Mapping[Literal["light", "dark"], dict[str, object]] = {
    "light": {},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}},
}
NO_FAULTS = (
    "Failed to load resource",  # an answer with 422 and the like: `on_response` decides about answers
    "Blocked script execution in",  # SHIFTS itself, in the frame of a mail
)
PIECES = {"script", "stylesheet", "image", "font"}

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser."""
    for item in items:
        if "browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A Chromium. Without one on this machine the tests are skipped, in CI they fail.

    It ends with the last test in this folder: as long as it is there, no other event loop can run in this thread.
    """
    if program() is None:
        pytest.fail(MISSING) if os.environ.get("CI") == "true" else pytest.skip(MISSING)
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture(scope="session")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Mailbox:
    """The mail that `catcher_port` was given; the portal shows it at /demo/mail."""
    return Mailbox(tmp_path_factory.mktemp("caught"))


@pytest.fixture(scope="session")
def catcher_port(mailbox: Mailbox) -> Iterator[int]:
    """The port of a mail server on 127.0.0.1 that keeps what it is given: no encryption, no authentication."""
    with catching(mailbox, 0) as port:
        yield port


@pytest.fixture(scope="session")
def live_app(built_app: Flask, settings: Settings, mailbox: Mailbox) -> Iterator[Flask]:
    """The portal behind a real port, which is in its PORTAL_URL."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        app = create_app(settings.model_copy(update={"portal_url": url, "demo_mail_dir": mailbox.folder}))
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=bound.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield app
        server.shutdown()
        thread.join()
        server.server_close()
        with app.app_context():
            db.engine.dispose()
            statements.dispose()


@pytest.fixture
def portal_url(app: Flask, live_app: Flask) -> str:
    """The address of the portal, with an empty database."""
    url: str = live_app.extensions["settings"].portal_url
    return url


@pytest.fixture
def open_page(chromium: Browser, portal_url: str) -> Iterator[OpenPage]:
    """A function that opens a page in a browser of its own. The test fails where one has errors in its console."""
    faults: list[str] = []
    with ExitStack() as contexts:

        def open_page(path: str = "/", *, width: int = 1440, dark: bool = False) -> Page:
            context = chromium.new_context(
                base_url=portal_url,
                viewport={"width": width, "height": HEIGHT},
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",  # so that nothing is looked at half-way from one colour to another
            )
            contexts.callback(context.close)
            context.add_init_script(SHIFTS)
            page = context.new_page()
            _watch(page, faults)
            page.goto(path)
            return page

        yield open_page
    assert not faults, "\n".join(faults)


@pytest.fixture
def sign_in(open_page: OpenPage, app: Flask) -> OpenPage:
    """A function that makes an account, signs in with it in a browser of its own, and returns the page that it sees."""

    def sign_in(email: str, *, administers: str | None = None, system: bool = False, **options: object) -> Page:
        with app.app_context():
            tenant = directory.find(administers) if administers else None
            registration.add(email, PASSWORD, system_administrator=system, tenant_id=tenant.id if tenant else None)
        page = open_page("/sign-in", **options)
        page.get_by_label("Email").fill(email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()
        return page

    return sign_in


def assert_usable(page: Page) -> None:
    """Assert that the page fits from a phone to a desktop, that axe-core finds no fault, and that Tab goes through."""
    page.wait_for_load_state()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{page.url} at {width}px can be scrolled sideways by {wider}px"
        for scheme, options in LOOKED_AT.items():
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page, options=options)
            assert not found.violations_count, f"{page.url}, {scheme}, {width}px: {found.generate_report()}"
        if width != WIDTHS[1]:  # a tablet has the phone's navigation and the desktop's pages
            assert_reached_by_tab(page)


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
