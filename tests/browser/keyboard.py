"""Checks that the Tab key reaches every control of a page and that the focus is visible."""

from playwright.sync_api import Page

STOPS = 8  # at most in one control: a date with a time has as many parts

# Lists the controls that Tab should reach: drawn, not disabled, one of a group of radio buttons, in the pop-up if there
# is one. Then notes which control each Tab gave the focus to, and what is wrong with how it shows. A key that moves the
# focus into a frame is reported to the frame alone: the window then loses the focus.
WATCH = """() => {
    const root = document.querySelector("dialog:modal") ?? document;
    const groups = new Set();
    const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    const none = ":disabled, [tabindex='-1'], [type=hidden]";
    const controls = [...root.querySelectorAll(all)].filter((it) => {
        if (it.matches(none) || !it.checkVisibility({visibilityProperty: true})) return false;
        if (it.type !== "radio") return true;
        const group = it.form?.id + it.name, first = !groups.has(group);
        groups.add(group);
        return first;
    });
    const reached = new Set(), faults = [];
    const note = () => {
        const it = document.activeElement;
        if (!it || it === document.body || reached.has(it)) return; // the parts of a date are drawn by the browser
        reached.add(it);
        if (it.matches("iframe")) return; // what has the focus within a frame is drawn by the email's own page
        const styles = [getComputedStyle(it), getComputedStyle(it.parentElement), getComputedStyle(it, "::after")];
        const outlined = (of) => of.outlineStyle !== "none" && parseFloat(of.outlineWidth) >= 2;
        const {top, bottom, left, right} = it.getBoundingClientRect();
        const seen = bottom >= 0 && top <= innerHeight && right >= 0 && left <= innerWidth;
        const fault = !seen ? "out of sight" : !styles.some(outlined) ? "no outline" : "";
        if (fault) faults.push(fault + ": " + it.outerHTML.slice(0, 120));
    };
    const onFrame = () => setTimeout(note);
    addEventListener("keyup", note, {capture: true});
    addEventListener("blur", onFrame);
    const start = root === document ? document.body : root; // Tab goes on from what had the focus last
    start.tabIndex = -1;
    start.focus({preventScroll: true});
    start.blur();
    start.removeAttribute("tabindex");
    const left = () => {
        const named = new Set([...reached].map((one) => one.name)); // a radio button stands for its name
        const isDone = (one) => !one.isConnected || reached.has(one) || (one.type === "radio" && named.has(one.name));
        return controls.filter((one) => !isDone(one)).map((one) => one.outerHTML.slice(0, 120));
    };
    const end = () => {
        removeEventListener("keyup", note, {capture: true});
        removeEventListener("blur", onFrame);
    };
    window.tabbing = {left, faults, end};
    return controls.length;
}"""


def assert_reachable_by_tab(page: Page) -> None:
    """Press Tab through the page; fail for a control that gets no focus or does not show it."""
    pressed, count = 0, page.evaluate(WATCH)
    left = [""] * count
    while left and pressed < STOPS * count:
        for _ in left:
            page.keyboard.press("Tab")
        pressed += len(left)
        left = page.evaluate("window.tabbing.left()")
    faults = page.evaluate("window.tabbing.end(), window.tabbing.faults")
    assert not faults, f"{page.url}: " + "\n".join(faults)
    assert not left, f"{page.url}: Tab does not reach {left}"
