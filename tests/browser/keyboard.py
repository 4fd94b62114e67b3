"""Every control of a page is reached by the Tab key, and shows that it is."""

from playwright.sync_api import Page

STOPS = 8  # at most in one control: a date with a time has as many parts

# Those that Tab should reach: drawn, not disabled, one of a group of radio buttons, in the pop-up if there is one.
CONTROLS = """() => {
    const root = document.querySelector("dialog:modal") ?? document;
    const groups = new Set();
    const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    const none = ":disabled, [tabindex='-1'], [type=hidden]";
    window.controls = [...root.querySelectorAll(all)].filter((it) => {
        if (it.matches(none) || !it.checkVisibility({visibilityProperty: true})) return false;
        if (it.type !== "radio") return true;
        const group = it.form?.id + it.name, first = !groups.has(group);
        groups.add(group);
        return first;
    });
    window.reached = new Set();
    document.activeElement?.blur();
    return window.controls.length;
}"""
# Notes which control has the focus, and tells what is wrong with how it shows.
REACHED = """() => {
    const it = document.activeElement;
    if (!it || it === document.body) return "";
    if (window.reached.has(it)) return ""; // the parts of a date, which the browser draws itself
    window.reached.add(it);
    if (it.matches("iframe")) return ""; // what has the focus in there is drawn by the mail's own page
    const styles = [getComputedStyle(it), getComputedStyle(it.parentElement), getComputedStyle(it, "::after")];
    const outlined = (of) => of.outlineStyle !== "none" && parseFloat(of.outlineWidth) >= 2;
    const {top, bottom, left, right} = it.getBoundingClientRect();
    const seen = bottom >= 0 && top <= innerHeight && right >= 0 && left <= innerWidth;
    const fault = !seen ? "out of sight: " : !styles.some(outlined) ? "no outline: " : "";
    return fault && fault + it.outerHTML.slice(0, 120);
}"""
MISSED = """() => window.controls
    .filter((it) => it.isConnected && !window.reached.has(it))
    .filter((it) => it.type !== "radio" || ![...window.reached].some((other) => other.name === it.name))
    .map((it) => it.outerHTML.slice(0, 120))"""


def assert_reached_by_tab(page: Page) -> None:
    """Press Tab until all controls should have had the focus; fail for one that had not, or did not show it."""
    faults, missed = [], []
    for _ in range(STOPS * page.evaluate(CONTROLS)):
        page.keyboard.press("Tab")
        if fault := page.evaluate(REACHED):
            faults.append(fault)
        missed = page.evaluate(MISSED)
        if not missed:
            break
    assert not faults, f"{page.url}: " + "\n".join(faults)
    assert not missed, f"{page.url}: Tab does not reach " + "\n".join(missed)
