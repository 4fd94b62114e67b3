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
# Notes which control has the focus, and returns what is wrong with how it shows, and how many are left.
REACHED = """() => {
    const it = document.activeElement;
    let fault = "";
    if (it && it !== document.body && !window.reached.has(it)) { // but for the parts of a date, which the browser draws
        window.reached.add(it);
        const styles = [getComputedStyle(it), getComputedStyle(it.parentElement), getComputedStyle(it, "::after")];
        const outlined = (of) => of.outlineStyle !== "none" && parseFloat(of.outlineWidth) >= 2;
        const {top, bottom, left, right} = it.getBoundingClientRect();
        const seen = bottom >= 0 && top <= innerHeight && right >= 0 && left <= innerWidth;
        // What has the focus within a frame is drawn by the mail's own page.
        fault = it.matches("iframe") ? "" : !seen ? "out of sight" : !styles.some(outlined) ? "no outline" : "";
        if (fault) fault += ": " + it.outerHTML.slice(0, 120);
    }
    const named = new Set([...window.reached].map((one) => one.name)); // a radio button stands for its name
    const done = (one) => !one.isConnected || window.reached.has(one) || (one.type === "radio" && named.has(one.name));
    window.left = window.controls.filter((one) => !done(one));
    return [fault, window.left.length];
}"""
LEFT = "() => window.left.map((one) => one.outerHTML.slice(0, 120))"


def assert_reached_by_tab(page: Page) -> None:
    """Press Tab until all controls should have had the focus; fail for one that had not, or did not show it."""
    faults, left = [], 0
    for _ in range(STOPS * page.evaluate(CONTROLS)):
        page.keyboard.press("Tab")
        fault, left = page.evaluate(REACHED)
        faults += [fault] if fault else []
        if not left:
            break
    assert not faults, f"{page.url}: " + "\n".join(faults)
    assert not left, f"{page.url}: Tab does not reach {page.evaluate(LEFT)}"
