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
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target);
  target.closest("[data-close]")?.closest(".note").remove();
  const box = target.closest("[data-pick-all]");
  if (box) for (const pick of box.form.querySelectorAll(".pick")) pick.checked = true;
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

// A switch shows what is saved: where saving failed it goes back.
for (const event of ["htmx:responseError", "htmx:sendError", "htmx:timeout"])
  document.addEventListener(event, ({ detail }) => {
    const source = detail.requestConfig.triggeringEvent?.target;
    if (source?.matches("[role=switch]")) source.checked = !source.checked;
    if (event === "htmx:responseError") return; // the answer brings its own message
    document.getElementById("messages").replaceChildren(document.getElementById("unreachable").content.cloneNode(true));
  });
