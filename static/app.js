// What HTML and HTMX cannot do alone. Every page works without this file.

// htmx calls this for the first page and for each piece that it swaps in.
htmx.onLoad((piece) => {
  for (const dialog of [piece, ...piece.querySelectorAll("dialog[data-open]")].filter((it) => it.matches("dialog[data-open]"))) {
    dialog.removeAttribute("open");
    dialog.showModal();
  }
  piece.querySelector("[aria-invalid=true]")?.focus();
});

document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target);
  target.closest("[data-close]")?.closest(".note").remove();
  const box = target.closest("[data-pick-all]");
  if (box) for (const pick of box.form.querySelectorAll(".pick")) pick.checked = true;
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
    const source = detail.requestConfig.triggeringEvent?.target;
    if (source?.matches("[role=switch], [data-saved]")) source.checked = !source.checked;
    if (event === "htmx:responseError") return; // the answer brings its own message
    document.getElementById("messages").replaceChildren(document.getElementById("unreachable").content.cloneNode(true));
  });
