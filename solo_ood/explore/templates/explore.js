// Shows a ranking, takes answers and boxes, and has them saved by the server at once.
"use strict";

const PAGE = 60; // pictures that are asked for at a time
const POLL = 1500; // milliseconds between looks at what the server is doing
const SMALLEST = 3; // pixels on the screen: a shorter stroke is a click

const id = (name) => document.getElementById(name);
const make = (tag, about = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), about);
  node.append(...children);
  return node;
};

let items = []; // the pictures that are listed, in their order
let total = 0;
let view = "chosen";
let round = 0; // of lists: an answer that comes late is of an earlier one
let open = -1; // place of the enlarged picture in items
let unfinished = false; // whether the server is at work

history.replaceState(null, "", location.pathname); // the token is a cookie now

// ---- the server ----

async function ask(path, body) {
  const how = body && { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(path, { ...how, headers: { "Content-Type": "application/json" } });
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  let reason = text;
  try {
    reason = JSON.parse(text).error;
  } catch {} // not every error is one of ours
  throw new Error(reason);
}

function say(text, failed = false) {
  for (const place of [id("said"), id("said-large")]) {
    place.textContent = text;
    place.classList.toggle("error", failed);
  }
}

async function trying(work) {
  try {
    return await work();
  } catch (error) {
    const gone = error instanceof TypeError ? "the server does not answer: " : "";
    say(gone + error.message, true);
    return null;
  }
}

// ---- what stands beside the pictures ----

function options(select, entries, chosen) {
  const texts = JSON.stringify(entries);
  if (select.dataset.texts === texts) return; // a list that is open stays so
  select.dataset.texts = texts;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  if (entries.some(([value]) => value === chosen)) select.value = chosen;
}

const boxCount = (count) => `${count} ${count === 1 ? "box" : "boxes"}`;

function counts(state) {
  const { yes, no, boxes } = state.counts;
  const parts = [`${yes} yes`, `${no} no`, boxCount(boxes)];
  if (state.audit.drawn) parts.push(`audit: ${state.audit.answered} of ${state.audit.drawn}`);
  return parts.join(" · ");
}

function showState(state) {
  document.title = `Rare images of ${state.title}`;
  id("title").textContent = document.title;
  id("notes").replaceChildren(...state.notes.map((text) => make("li", { textContent: text })));
  const form = id("filters").elements;
  options(
    form.view,
    state.views.map(([name, text, count]) => [name, `${text} (${count})`]),
    view
  );
  view = form.view.value;
  options(form.clip, [["", "all"], ...state.clips.map((clip) => [clip, clip])], form.clip.value);
  id("clips").hidden = state.clips.length < 2 || view === "audit";
  for (const label of document.querySelectorAll(".scores")) label.hidden = view === "audit";
  if (state.scores) {
    form.low.placeholder = state.scores[0].toPrecision(4);
    form.high.placeholder = state.scores[1].toPrecision(4);
  }
  id("counts").textContent = counts(state);
  id("undo").disabled = id("undo-large").disabled = state.undo === 0;
  const why = {
    preparing: "reading features …",
    ready: `ranked by ${state.detector}`,
    off: `not possible: ${state.rerank.reason}`,
  };
  id("rerank").disabled = state.rerank.state !== "ready" || Boolean(state.busy);
  id("rerank-why").textContent = why[state.rerank.state];
  const files = [
    ["explored-answers.csv", "--feedback", state.counts.yes + state.counts.no],
    ["explored-boxes.csv", "--boxes", state.counts.boxes],
    ["audit.csv", "--audited", state.audit.answered],
  ];
  const lines = files
    .filter(([, , count]) => count)
    .flatMap(([name, option]) => [
      make("dt", { textContent: `${state.out}/${name}` }),
      make("dd", { textContent: `solo-ood rank … ${option} takes it` }),
    ]);
  const none = make("dd", { textContent: `None so far; they will be in ${state.out}.` });
  id("files").replaceChildren(...(lines.length ? lines : [none]));
}

async function look() {
  const state = await trying(() => ask("state"));
  if (!state) return;
  showState(state);
  if (state.failed) say(`The list is shown, but could not be written: ${state.failed}`, true);
  else if (unfinished && !state.writing) say("The new list and its report are written.");
  unfinished = state.writing;
  if (state.writing || state.busy || state.rerank.state === "preparing") setTimeout(look, POLL);
}

// ---- the list ----

async function load(more = false) {
  const mine = more ? round : ++round;
  const query = new URLSearchParams(new FormData(id("filters")));
  query.set("offset", more ? items.length : 0);
  query.set("count", PAGE);
  const found = await trying(() => ask(`pictures?${query}`));
  if (!found || mine !== round || (more && found.offset !== items.length)) return;
  if (!more) items = [];
  const first = items.length;
  items.push(...found.items);
  total = found.total;
  const tiles = found.items.map((_, number) => tile(first + number));
  if (more) id("list").append(...tiles);
  else id("list").replaceChildren(...tiles);
  id("told").textContent = `${total} of ${found.of} pictures`;
  id("more").hidden = items.length >= total;
  end.unobserve(id("more")); // to hear of it again if it is still in sight
  end.observe(id("more"));
}

function place(left, top, right, bottom, [width, height], kind) {
  const mark = make("i", { className: kind });
  mark.style.left = `${(100 * left) / width}%`;
  mark.style.top = `${(100 * top) / height}%`;
  mark.style.width = `${(100 * (right - left)) / width}%`;
  mark.style.height = `${(100 * (bottom - top)) / height}%`;
  return mark;
}

function shot(item, size) {
  if (!item.size) return make("span", { className: "shot gone", textContent: "not to be shown" });
  const loading = size === "small" ? "lazy" : "eager";
  const image = make("img", { alt: "", draggable: false, loading });
  [image.width, image.height] = item.size;
  image.src = `pictures/${item.number}/${size}`;
  const marks = item.box ? [place(...item.box, item.size, "mark")] : [];
  const own = item.boxes.map((box) => place(...box, item.size, "mark own"));
  return make("span", { className: "shot" }, image, ...marks, ...own);
}

function about(item) {
  const parts = [];
  if (item.rank) parts.push(`rank ${item.rank}`);
  if (item.like) parts.push(`+${item.like} like it`);
  if (typeof item.score === "number") parts.push(`score ${item.score.toPrecision(4)}`);
  if (item.clip) parts.push(`clip ${item.clip}`);
  if (item.boxes.length) parts.push(boxCount(item.boxes.length));
  return parts.join(" · ");
}

function tile(at) {
  const item = items[at];
  const zoom = make("button", { type: "button", className: "zoom" }, shot(item, "small"));
  zoom.setAttribute("aria-label", `Enlarge ${item.name}, ${about(item)}, ${item.answer ?? "open"}`);
  zoom.addEventListener("click", () => enlarge(at));
  const buttons = ["yes", "no"].map((word) => {
    const text = word === "yes" ? "Yes" : "No";
    const button = make("button", { type: "button", className: word, textContent: text });
    button.setAttribute("aria-pressed", item.answer === word);
    button.setAttribute("aria-label", `${text}: ${item.name}`);
    button.addEventListener("click", () => toggle(at, word));
    return button;
  });
  const caption = make(
    "span",
    { className: "caption", textContent: about(item) },
    make("span", { className: "path", textContent: item.name })
  );
  const node = make("li", {}, zoom, make("p", { className: "row" }, ...buttons), caption);
  node.dataset.at = at;
  if (item.answer) node.classList.add(`is-${item.answer}`);
  return node;
}

const tileAt = (at) => id("list").children[at];

function redraw(at) {
  const old = tileAt(at);
  const focused = [...old.querySelectorAll("button")].indexOf(document.activeElement);
  old.replaceWith(tile(at));
  if (focused >= 0) tileAt(at).querySelectorAll("button")[focused].focus();
}

async function focusTile(at) {
  if (at >= items.length && items.length < total) await load(true);
  if (at < 0 || at >= items.length) return;
  tileAt(at).querySelector("button").focus();
  tileAt(at).scrollIntoView({ block: "nearest" });
}

// ---- answers ----

function told(item) {
  const boxes = item.boxes.length ? `, ${boxCount(item.boxes.length)}` : "";
  return `${item.name}: ${item.answer ?? "no answer"}${boxes}. ${id("counts").textContent}`;
}

function changed(found) {
  showState(found.state);
  const at = items.findIndex((item) => item.number === found.item.number);
  if (at < 0 || found.audit !== (view === "audit")) return -1;
  items[at] = found.item;
  redraw(at);
  if (at === open) showLarge();
  return at;
}

async function answer(at, word, boxes = []) {
  const rare = { yes: true, no: false }[word] ?? null;
  const number = items[at].number;
  const body = { number, audit: view === "audit", rare, boxes: rare ? boxes : [] };
  const found = await trying(() => ask("answer", body));
  if (!found) return false;
  changed(found);
  say(told(found.item));
  return true;
}

const toggle = (at, word) =>
  answer(at, items[at].answer === word ? null : word, word === "yes" ? items[at].boxes : []);

async function undo() {
  const found = await trying(() => ask("undo", {}));
  if (!found) return;
  if (!found.item) return say("There is nothing to undo.");
  const at = changed(found);
  say(`Undone. ${told(found.item)}`);
  if (at < 0) return;
  if (open >= 0) enlarge(at);
  else focusTile(at);
}

async function rerank() {
  id("rerank").disabled = true;
  say("Ranking again …");
  const found = await trying(() => ask("rerank", {}));
  if (found) {
    view = "chosen";
    showState(found.state);
    await load();
    const notes = found.notes.filter((note) => /takes its place|--keep-patches/.test(note));
    const by = `Ranked again by ${found.state.detector}: ${found.new} scenes are new.`;
    say([by, ...notes, "The list and its report are being written …"].join(" "));
    unfinished = true;
    id("heading").focus();
  }
  setTimeout(look, found ? 300 : POLL);
}

// ---- the enlarged picture ----

const dialog = id("large");

async function enlarge(at) {
  if (at >= items.length && items.length < total) await load(true);
  if (at < 0 || at >= items.length) return say("There are no more pictures.");
  open = at;
  showLarge();
  if (!dialog.open) dialog.showModal();
  id("large-title").focus();
}

function showLarge() {
  const item = items[open];
  id("large-title").textContent = item.name;
  id("large-about").textContent = `${open + 1} of ${total} · ${about(item)}`;
  const old = id("place").firstElementChild;
  const fresh = shot(item, "large");
  if (old && old.dataset.number === String(item.number)) {
    for (const mark of old.querySelectorAll(".mark")) mark.remove(); // the picture is there
    old.append(...fresh.querySelectorAll(".mark"));
  } else {
    fresh.dataset.number = item.number;
    if (item.size && view !== "audit") fresh.addEventListener("pointerdown", draw);
    id("place").replaceChildren(fresh);
  }
  for (const button of dialog.querySelectorAll("[data-rare]")) {
    button.setAttribute("aria-pressed", item.answer === button.dataset.rare);
  }
  id("drawn").hidden = view === "audit" || !item.size;
  showBoxes(item);
}

function showBoxes(item) {
  const focused = document.activeElement?.dataset?.side;
  id("boxes").replaceChildren(
    ...item.boxes.map((box, number) => {
      const inputs = ["left", "top", "right", "bottom"].map((side, index) => {
        const input = make("input", { type: "number", min: 0, value: box[index] });
        input.max = item.size[index % 2];
        input.dataset.side = `${number} ${side}`;
        input.addEventListener("change", () => {
          const boxes = item.boxes.map((other) => [...other]);
          boxes[number][index] = Number(input.value);
          setBoxes(boxes);
        });
        return make("label", {}, `${side} `, input);
      });
      const gone = make("button", { type: "button", textContent: "Remove" });
      gone.setAttribute("aria-label", `Remove box ${number + 1}`);
      gone.addEventListener("click", () => {
        setBoxes(item.boxes.filter((_, other) => other !== number));
        id("add").focus();
      });
      return make("li", {}, ...inputs, gone);
    })
  );
  if (focused) id("boxes").querySelector(`[data-side="${focused}"]`)?.focus();
}

async function setBoxes(boxes) {
  if (!(await answer(open, "yes", boxes))) showBoxes(items[open]); // as they were
}

async function addBox() {
  const item = items[open];
  if (!item.size || view === "audit") return;
  const [width, height] = item.size;
  const box = [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4].map(Math.round);
  await setBoxes([...item.boxes, box]);
  id("boxes").lastElementChild?.querySelector("input").focus();
}

function draw(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  const shown = event.currentTarget;
  const item = items[open];
  const [width, height] = item.size;
  const frame = shown.querySelector("img").getBoundingClientRect();
  const point = (from) => [
    Math.min(width, Math.max(0, Math.round(((from.clientX - frame.left) / frame.width) * width))),
    Math.min(height, Math.max(0, Math.round(((from.clientY - frame.top) / frame.height) * height))),
  ];
  const start = point(event);
  let box = null;
  let mark = null;
  const move = (next) => {
    const end = point(next);
    const far = Math.hypot(next.clientX - event.clientX, next.clientY - event.clientY);
    const [left, right] = [start[0], end[0]].sort((a, b) => a - b);
    const [top, bottom] = [start[1], end[1]].sort((a, b) => a - b);
    box = far >= SMALLEST && left < right && top < bottom ? [left, top, right, bottom] : null;
    mark?.remove();
    mark = box && place(...box, item.size, "mark own");
    if (mark) shown.append(mark);
  };
  const stop = (last) => {
    shown.removeEventListener("pointermove", move);
    shown.removeEventListener("pointerup", stop);
    shown.removeEventListener("pointercancel", stop);
    mark?.remove();
    if (box && last.type === "pointerup") setBoxes([...item.boxes, box]);
  };
  shown.setPointerCapture(event.pointerId);
  shown.addEventListener("pointermove", move);
  shown.addEventListener("pointerup", stop);
  shown.addEventListener("pointercancel", stop);
}

// ---- keys ----

async function keyed(event, at, go) {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const word = { y: "yes", n: "no" }[event.key.toLowerCase()];
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (word || step || event.key === "u") event.preventDefault();
  if (event.key === "u") return undo();
  if (step) return go(at + step);
  if (word && (await answer(at, word, word === "yes" ? items[at].boxes : []))) {
    if (at + 1 < total) go(at + 1);
  }
}

id("list").addEventListener("keydown", (event) => {
  const node = event.target.closest("li");
  if (node) keyed(event, Number(node.dataset.at), focusTile);
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "b" && !event.target.closest("input")) {
    event.preventDefault();
    addBox();
  } else keyed(event, open, enlarge);
});
dialog.addEventListener("close", () => {
  const at = open;
  open = -1;
  id("place").replaceChildren();
  focusTile(at);
});
for (const button of dialog.querySelectorAll("[data-rare]")) {
  button.addEventListener("click", () => toggle(open, button.dataset.rare));
}
id("add").addEventListener("click", addBox);
id("back").addEventListener("click", () => enlarge(open - 1));
id("next").addEventListener("click", () => enlarge(open + 1));
id("close").addEventListener("click", () => dialog.close());
for (const name of ["undo", "undo-large"]) id(name).addEventListener("click", undo);
id("rerank").addEventListener("click", rerank);

// ---- filters ----

let typed = 0;
function filter() {
  clearTimeout(typed);
  typed = setTimeout(() => {
    view = id("filters").elements.view.value;
    load();
    look();
  }, 200);
}
for (const event of ["input", "change", "reset"]) id("filters").addEventListener(event, filter);
id("filters").addEventListener("submit", (event) => event.preventDefault());
id("more").addEventListener("click", async () => {
  const at = items.length;
  await load(true);
  focusTile(at);
});
const end = new IntersectionObserver(
  (entries) => {
    if (entries.at(-1).isIntersecting && !id("more").hidden) load(true);
  },
  { rootMargin: "600px" }
);

look().then(() => load());
