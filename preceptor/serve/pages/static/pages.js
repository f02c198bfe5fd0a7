// What pages do beyond links and forms. Without it everything works by links and buttons.
"use strict";

// One key does what the element with this data-key does; never while somebody writes.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const at = event.target;
  if (at instanceof HTMLElement && at.closest("input, textarea, select, [contenteditable]")) return;
  const wanted = Array.from(document.querySelectorAll("[data-key]")).find((one) => one.dataset.key === event.key);
  if (wanted) {
    event.preventDefault();
    wanted.click();
  }
});

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  else if (form.method === "post" && !form.hasAttribute("hx-post")) form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// A part of the page that the server draws anew whenever it changes. What it sends is escaped; scripts in it would not run.
document.querySelectorAll("[data-stream]").forEach((place) => {
  const source = new EventSource(place.dataset.stream);
  source.addEventListener("piece", (event) => {
    const open = new Set(Array.from(place.querySelectorAll("details[open] > summary"), (one) => one.textContent));
    const focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
    place.replaceChildren(...new DOMParser().parseFromString(event.data, "text/html").body.childNodes);
    place.querySelectorAll("summary").forEach((one) => {
      if (open.has(one.textContent)) one.parentElement.open = true;
    });
    const again = Array.from(place.querySelectorAll("a, button, summary")).find((one) => one.textContent === focused);
    if (again) again.focus();
  });
  source.addEventListener("end", () => source.close());
});
