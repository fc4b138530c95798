// Sorts and filters tables, enlarges pictures, and says what a point of a scatter is.
"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// A picture that is shown again is in the page once: the others take it from there.
const sources = new Map(
  all("img[data-image][src]").map((image) => [image.dataset.image, image.src])
);
for (const image of all("img[data-image]:not([src])")) {
  image.src = sources.get(image.dataset.image);
}

// ---- tables ----

function compare(one, other, column, sign) {
  const [a, b] = [one.cells[column], other.cells[column]];
  if (a.dataset.value === undefined) return sign * a.textContent.localeCompare(b.textContent);
  const [x, y] = [parseFloat(a.dataset.value), parseFloat(b.dataset.value)];
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is not known stays at the end
  return sign * (x - y);
}

function sortBy(head) {
  const table = head.closest("table");
  const first = head.classList.contains("words") ? "ascending" : "descending";
  const second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  for (const other of all("th", table)) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => compare(one, other, head.cellIndex, sign));
  table.tBodies[0].append(...rows);
}

function filter(form) {
  const rows = [...form.parentElement.querySelector("table").tBodies[0].rows];
  const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = all("select", form).filter((select) => select.value !== "");
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const kept =
      words.every((word) => text.includes(word)) &&
      chosen.every((select) => row.cells[select.dataset.column].textContent === select.value);
    row.hidden = !kept;
  }
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
}

for (const head of all("th[aria-sort]")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}
for (const form of all("form.filters")) {
  form.hidden = false;
  for (const event of ["input", "change"]) form.addEventListener(event, () => filter(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => filter(form)));
  filter(form);
}

// ---- pictures ----

const dialog = document.querySelector("dialog");

function enlarge(button) {
  const place = dialog.querySelector(".place");
  place.replaceChildren(button.firstElementChild.cloneNode(true));
  place.classList.toggle("figure", place.firstElementChild.tagName === "IMG");
  const caption = button.parentElement.querySelector(".caption");
  dialog.querySelector("p").replaceChildren(...caption.cloneNode(true).childNodes);
  dialog.showModal();
}

for (const button of all("button.zoom")) button.addEventListener("click", () => enlarge(button));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
dialog.querySelector("button").addEventListener("click", () => dialog.close());

// ---- scatters ----

const tip = document.getElementById("tip");

function line(text) {
  const part = document.createElement("div");
  part.textContent = text;
  return part;
}

function describe(point, about) {
  for (const other of all(".chosen")) other.classList.remove("chosen");
  tip.hidden = !point;
  if (!point) return;
  point.classList.add("chosen");
  const [key, ...texts] = about[point.dataset.point];
  tip.replaceChildren(...texts.map(line));
  if (sources.has(key)) {
    const image = document.createElement("img");
    image.src = sources.get(key);
    image.alt = "";
    tip.append(image);
  }
  const [box, own] = [point.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = Math.min(box.right + 8, innerWidth - own.width - 8);
  const top = Math.min(box.bottom + 8, innerHeight - own.height - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

for (const scatter of all(".scatter")) {
  const about = JSON.parse(scatter.querySelector("script").textContent);
  for (const panel of all(".panels svg", scatter)) {
    const points = all("[data-point]", panel);
    let current = -1;
    panel.addEventListener("pointerover", (event) => {
      current = points.indexOf(event.target);
      describe(points[current], about);
    });
    panel.addEventListener("pointerleave", () => describe(null, about));
    panel.addEventListener("blur", () => describe(null, about));
    panel.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") describe(null, about);
      if (!step) return;
      event.preventDefault();
      current = (current + step + points.length) % points.length;
      describe(points[current], about);
    });
  }
}
