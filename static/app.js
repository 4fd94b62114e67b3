// What HTML and HTMX cannot do alone. Every page works without this file.

// htmx calls this for the first page and for each piece that it swaps in.
htmx.onLoad((piece) => {
  for (const dialog of [piece, ...piece.querySelectorAll("dialog[data-open]")].filter((it) => it.matches("dialog[data-open]"))) {
    dialog.removeAttribute("open");
    dialog.showModal();
  }
  piece.querySelector("[aria-invalid=true]")?.focus();
});

document.addEventListener("click", (event) => {
  const { target } = event;
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target) && !target.closest("a[href^='#']");
  target.closest("[data-close]")?.closest(".note").remove();
  const box = target.closest("[data-pick-all]");
  if (box) for (const pick of box.form.querySelectorAll(".pick")) pick.checked = true;
  const tab = target.closest("[data-tab]"); // what it leads to is in the page already
  if (tab) {
    event.preventDefault();
    for (const each of tab.parentElement.children) {
      each.ariaCurrent = each === tab ? "true" : null;
      document.getElementById(each.dataset.tab).hidden = each !== tab;
    }
    history.replaceState(history.state, "", tab.href);
  }
  const copy = target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent.trim()).then(() => (copy.textContent = "Copied"));
});

document.addEventListener("keydown", ({ key, target }) => {
  const menu = key === "Escape" && target.closest("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A switch shows what is saved: where saving failed it goes back.
for (const event of ["htmx:responseError", "htmx:sendError", "htmx:timeout"])
  document.addEventListener(event, ({ detail }) => {
    const source = detail.requestConfig.triggeringEvent?.target;
    if (source?.matches("[role=switch]")) source.checked = !source.checked;
    if (event === "htmx:responseError") return; // the answer brings its own message
    document.getElementById("messages").replaceChildren(document.getElementById("unreachable").content.cloneNode(true));
  });

// What waits for news, [data-poll] with hx-trigger="poll", asks for it every 3 seconds while somebody can see the page.
setInterval(() => {
  if (document.visibilityState === "visible") for (const it of document.querySelectorAll("[data-poll]")) htmx.trigger(it, "poll");
}, 3000);
