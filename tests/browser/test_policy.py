"""The Content-Security-Policy in a real browser: injected content is blocked, and our pages obey the policy."""

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OpenPage
from tests.tenant_fixtures import Post

WATCH = """
window.broken = []
document.addEventListener("securitypolicyviolation", (event) => {
    broken.push(event.effectiveDirective)
    console.info(`stopped: ${event.effectiveDirective}`)
})
"""
SMUGGLED = {
    "script-src-elem": "const made = document.createElement('script');"
    "made.textContent = 'console.info(`taken`)'; document.body.append(made)",
    "script-src-attr": "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"console.info(`taken`)\">')",
    "style-src-attr": "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x</p>')",
    "img-src": "document.body.insertAdjacentHTML('beforeend', '<img src=\"https://evil.example/x.png\">')",
    "form-action": "document.body.insertAdjacentHTML('beforeend', '<form action=\"https://evil.example/\"></form>');"
    "document.querySelector('form[action*=evil]').submit()",
    "frame-src": "document.body.insertAdjacentHTML('beforeend', '<iframe src=\"https://evil.example/\"></iframe>')",
    "connect-src": "fetch('https://evil.example/').catch(() => 0)",
}


@pytest.mark.parametrize("directive", SMUGGLED)
def test_injected_content_is_blocked(chromium: Browser, portal_url: str, directive: str) -> None:
    with chromium.new_context(base_url=portal_url) as context:
        page = context.new_page()
        page.goto("/sign-in")
        page.evaluate(WATCH)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        with page.expect_console_message(lambda message: message.text == f"stopped: {directive}"):
            page.evaluate(f"() => {{ {SMUGGLED[directive]} }}")
        assert "taken" not in said


def test_our_pages_obey_the_policy(sign_in: OpenPage, working_tenant: str, post: Post) -> None:
    assert post("queue.call_lost").status_code == 200
    page = sign_in("admin@acme.example", administers=working_tenant)
    page.context.add_init_script(WATCH)
    for name in (
        "overview",
        "mail-server",
        "recipients",
        "notifications",
        "templates",
        "appearance",
        "connect",
        "keys",
        "deliveries",
    ):
        page.goto(f"/tenants/{working_tenant}/{name}")
        for details in page.locator("details").all():
            page.keyboard.press("a")  # what opens now may move the rest
            details.evaluate("it => it.open = true")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.broken") == [], name
    page.goto(f"/tenants/{working_tenant}/keys")
    page.locator("summary", has_text="New key").click()
    page.get_by_label("Name").fill("Main PBX")
    page.get_by_role("button", name="Issue a key").click()
    page.locator("#new-key").wait_for()
    assert page.evaluate("window.broken") == [], "what HTMX swapped in"
