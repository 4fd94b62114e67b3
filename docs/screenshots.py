"""Takes the screenshots in docs/images of the demo in Chromium: `make screenshots`."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from portal.config import ROOT
from portal.demo.data import DOMAIN, SYSTEM_ADMINISTRATOR, TENANT_ADMINISTRATOR
from portal.events.types import EVENT_TYPES
from tests.browser.chromium import MISSING, launch, program
from tests.demo.running import RunningDemo, running

IMAGES = ROOT / "docs" / "images"
DESKTOP = ViewportSize(width=1200, height=800)
MAIL = ViewportSize(width=680, height=400)


def main() -> None:
    """Start a demo in a temporary folder, post every event type, and take the screenshots."""
    if program() is None:
        sys.exit(f"No screenshots: {MISSING}")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as demo, sync_playwright() as playwright:
        for kind in EVENT_TYPES.values():
            demo.post(json.dumps({"type": kind.type, "data": dict(kind.sample)}))
        with launch(playwright) as browser:
            _tenant_pages(browser, demo)
            _system_pages(browser, demo)
            _emails(browser, demo)
            _public_pages(browser, demo)


def _tenant_pages(browser: Browser, demo: RunningDemo) -> None:
    with _signed_in(browser, demo, TENANT_ADMINISTRATOR) as page:
        for name in ("overview", "deliveries", "recipients", "notifications", "appearance", "connect"):
            page.goto(f"/tenants/{DOMAIN}/{name}")
            _take(page, f"tenant-{name}")
        page.goto(f"/tenants/{DOMAIN}/deliveries?outcome=partial")
        page.locator(".log th a").first.click()
        _take(page, "tenant-event")
        page.goto(f"/tenants/{DOMAIN}/templates/queue.call_lost")
        _take(page, "tenant-template")
        page.goto(f"/tenants/{DOMAIN}/mail-server")
        page.get_by_role("button", name="Send test email").first.click()
        page.locator(".test-steps > li.done").last.wait_for()
        page.locator("#test-email").scroll_into_view_if_needed()
        _take(page, "tenant-test-email")


def _system_pages(browser: Browser, demo: RunningDemo) -> None:
    with _signed_in(browser, demo, SYSTEM_ADMINISTRATOR) as page:
        for name in ("overview", "tenants", "mail-server"):
            page.goto(f"/system/{name}")
            _take(page, f"system-{name}")


def _emails(browser: Browser, demo: RunningDemo) -> None:
    with _page(browser, demo, MAIL) as page:
        for name, subject in (("lost-call", "Call lost"), ("welcome", "Welcome")):
            page.goto("/demo/mail")
            page.get_by_role("link", name=subject).first.click()
            page.goto(page.locator("iframe").get_attribute("src") or "")
            _save(page.screenshot(full_page=True), f"mail-{name}")


def _public_pages(browser: Browser, demo: RunningDemo) -> None:
    with _page(browser, demo) as page:
        page.goto("/api/reference")
        _take(page, "api-reference")


@contextmanager
def _page(browser: Browser, demo: RunningDemo, size: ViewportSize = DESKTOP) -> Iterator[Page]:
    with browser.new_context(base_url=demo.url, viewport=size, reduced_motion="reduce") as context:
        yield context.new_page()


@contextmanager
def _signed_in(browser: Browser, demo: RunningDemo, email: str) -> Iterator[Page]:
    with _page(browser, demo) as page:
        page.goto("/sign-in")
        page.get_by_label("Email").fill(email)
        page.get_by_label("Password").fill(demo.password(email))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()
        yield page


def _take(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    _save(page.screenshot(), name)


def _save(png: bytes, name: str) -> None:
    """Save the image with a palette, which is a third of the size."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    file = IMAGES / f"{name}.png"
    Image.open(BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
