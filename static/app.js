// What HTML and HTMX cannot do alone. Every page works without this file.

// htmx calls this for the first page and for each piece that it swaps in.
htmx.onLoad((piece) => {
  for (const dialog of [piece, ...piece.querySelectorAll("dialog[data-open]")].filter((it) => it.matches("dialog[data-open]"))) {
    dialog.removeAttribute("open");
    dialog.showModal();
  }
  piece.querySelector(".error-summary, [aria-invalid=true]")?.focus();
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const select of piece.querySelectorAll("[data-from-browser=time-zone]"))
    if ([...select.options].some((option) => option.value === zone)) select.value = zone;
  for (const button of piece.querySelectorAll("[data-press]")) button.click();
});

document.addEventListener("click", (event) => {
  const { target } = event;
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target) && !target.closest("a[href^='#']");
  target.closest("[data-close]")?.closest(".note").remove();
  const box = target.closest("[data-select-all]");
  if (box) for (const checkbox of box.form.querySelectorAll(".select-row")) checkbox.checked = true;
  const tab = target.closest("[data-tab]"); // what it leads to is in the page already
  if (tab) {
    event.preventDefault();
    for (const each of tab.parentElement.children) {
      each.ariaCurrent = each === tab ? "true" : null;
      document.getElementById(each.dataset.tab).hidden = each !== tab;
    }
    history.replaceState(history.state, "", tab.href);
  }
  const fill = target.closest("[data-fill]");
  if (fill) {
    event.preventDefault();
    const filled = document.getElementById(fill.dataset.fill);
    filled.value = fill.dataset.with;
    filled.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const copy = target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent.trim()).then(() => (copy.textContent = copy.dataset.copied ?? "Copied"));
});

// The browser reads a chosen file into a text area, as pages take no files: in UTF-8, UTF-16 or Windows' Latin-1.
const decodeFile = (bytes) => {
  const [first, second] = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength));
  const encoding = (first === 0xff && second === 0xfe) || second === 0 ? "utf-16le" : (first === 0xfe && second === 0xff) || first === 0 ? "utf-16be" : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
};
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-read-file]");
  if (!button) return;
  const input = Object.assign(document.createElement("input"), { type: "file", accept: ".csv,.txt,.tsv,.json" });
  input.addEventListener("change", async () => (document.getElementById(button.dataset.readFile).value = decodeFile(await input.files[0].arrayBuffer())));
  input.click();
});

// Poll while the page is visible, unless the reader has selected something or is pressing a button.
const poll = () => {
  if (document.hidden || document.querySelector(".select-row:checked, .log button:focus-visible, .htmx-request")) return;
  for (const it of document.querySelectorAll("[data-poll]")) htmx.trigger(it, "poll");
};
setInterval(poll, 3000);
document.addEventListener("visibilitychange", poll);

// An action goes first: the response to a poll would replace the element that the action's response is meant for.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.requestConfig.elt.matches("[data-poll]") && document.querySelector(".htmx-request:not([data-poll])")) detail.shouldSwap = false;
});

// Two controls of one value, such as a colour and its digits: each takes what is whole in the other.
document.addEventListener("input", ({ target }) => {
  const twin = target.dataset?.twin && document.getElementById(target.dataset.twin);
  if (twin && /^#[0-9a-f]{6}$/i.test(target.value)) twin.value = target.value.toLowerCase();
});

document.addEventListener("keydown", ({ key, target }) => {
  const menu = key === "Escape" && target.closest("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A click on a placeholder inserts it at the cursor, in the last focused field that accepts placeholders.
let insertTarget;
document.addEventListener("focusin", ({ target }) => (insertTarget = target.closest("[data-insert-target]") ?? insertTarget));
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-insert]");
  if (!button) return;
  (insertTarget?.isConnected ? insertTarget : document.querySelector("[data-insert-target='default']")).focus();
  document.execCommand("insertText", false, button.dataset.insert); // unlike setting the value, this can be undone
});

// Of an answer that is streamed, the last whole list that has come so far.
document.addEventListener("htmx:beforeSend", ({ detail: { elt, target, xhr } }) => {
  if (!elt.matches("[data-streams]")) return;
  xhr.addEventListener("progress", () => {
    const whole = xhr.responseText.slice(0, xhr.responseText.lastIndexOf("</ol>"));
    const list = [...new DOMParser().parseFromString(whole, "text/html").querySelectorAll("ol")].pop();
    if (list) target.replaceChildren(...list.children);
  });
});

// A switch shows what is saved: where saving failed it goes back.
for (const event of ["htmx:responseError", "htmx:sendError", "htmx:timeout"])
  document.addEventListener(event, ({ detail }) => {
    if (detail.elt.matches("[data-poll]")) return; // it polls again in a moment
    const source = detail.requestConfig.triggeringEvent?.target;
    if (source?.matches("[role=switch], [data-saved]")) source.checked = !source.checked;
    if (event === "htmx:responseError") return; // the answer brings its own message
    document.getElementById("messages").replaceChildren(document.getElementById("unreachable").content.cloneNode(true));
  });
