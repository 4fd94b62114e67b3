"""What every page is checked for: it fits all screens, axe-core finds nothing, and Tab reaches every control."""

from typing import Final

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Page

from tests.browser.keyboard import assert_reachable_by_tab

WIDTHS: Final = (360, 768, 1440)  # a phone, a tablet, a desktop
HEIGHT: Final = 900
SCHEMES: Final = ("light", "dark")
# The contrast of colours takes axe-core four times as long as everything else, and is the only thing that the colour
# scheme decides. So it is computed for each element once in each scheme, and again where another width shows an element
# that was hidden, or gives it, or what contains it, another style.
CONTRAST: Final = ("color-contrast", "link-in-text-block")
RUN_AXE: Final = """async ([scheme, contrast, isFirst]) => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // the second has the new styles
    const found = [];
    const run = async (context, options) => {
        const basics = {iframes: false, preload: false, resultTypes: ["violations"]};
        const results = await axe.run(context, {...options, ...basics});
        found.push(...results.violations);
    };
    window.stylesSeen ??= {};
    if (isFirst) window.stylesSeen[scheme] = new WeakMap();
    const seen = window.stylesSeen[scheme];
    const changed = [...document.body.querySelectorAll("*")].filter((it) => {
        if (!it.checkVisibility({visibilityProperty: true})) return false;
        const {color, background, opacity, position, fontSize, fontWeight, textDecoration} = getComputedStyle(it);
        const style = [color, background, opacity, position, fontSize, fontWeight, textDecoration].join();
        const isChanged = seen.get(it) !== style;
        seen.set(it, style);
        return isChanged;
    });
    if (isFirst && scheme === "light") {
        await run(document, {});
        return found;
    }
    if (scheme === "light")
        await run(document, {rules: Object.fromEntries(contrast.map((rule) => [rule, {enabled: false}]))});
    const include = isFirst ? [document] : changed;
    if (include.length) await run({include}, {runOnly: {type: "rule", values: contrast}});
    return found;
}"""


def assert_usable(page: Page) -> None:
    """Assert that the page fits phone and desktop, axe-core finds nothing, and Tab reaches every control."""
    page.wait_for_load_state()
    _load_axe(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{page.url} at {width}px can be scrolled sideways by {wider}px"
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            violations = page.evaluate(RUN_AXE, [scheme, CONTRAST, width == WIDTHS[0]])
            assert not violations, f"{page.url}, {scheme}, {width}px: {_report(violations)}"
        if width != WIDTHS[1]:  # a tablet has the phone's navigation and the desktop's pages
            assert_reachable_by_tab(page)


def let_pass(page: Page, milliseconds: int) -> None:
    """Move the installed clock of a page on, which starts what a timer starts, and let the requests begin."""
    page.clock.run_for(milliseconds)
    page.wait_for_timeout(200)


def assert_accessible(page: Page) -> None:
    """Assert that axe-core finds nothing at the present width."""
    _load_axe(page)
    violations = page.evaluate("axe.run({resultTypes: ['violations']}).then(({violations}) => violations)")
    assert not violations, f"{page.url}: {_report(violations)}"


def _load_axe(page: Page) -> None:
    if page.evaluate("window.axe === undefined"):
        page.evaluate(AXE_SCRIPT)


def _report(violations: list[dict[str, object]]) -> str:
    report: str = AxeResults({"violations": violations}).generate_report()
    return report
