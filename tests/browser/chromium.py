"""Starts this machine's Chromium, for tests and screenshots."""

import shutil

from playwright.sync_api import Browser, Playwright

ARGUMENTS = (
    "--no-sandbox",  # which Chromium does not have as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--no-opt --no-maglev",  # a page's scripts end before it pays to optimise them
)
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")  # the first has no windows, and costs a third
MISSING = "there is no Chromium on this machine (Debian: apt-get install chromium-headless-shell)"


def program() -> str | None:
    """Return the path of the machine's Chromium, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def launch(playwright: Playwright) -> Browser:
    """Start the machine's Chromium."""
    return playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
