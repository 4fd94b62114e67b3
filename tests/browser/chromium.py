"""The Chromium of this machine, as tests and screenshots start it."""

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
)
MISSING = "there is no Chromium on this machine (Debian: apt-get install chromium)"


def program() -> str | None:
    """Return the path of the machine's Chromium, or None."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> Browser:
    """Start the machine's Chromium."""
    return playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
