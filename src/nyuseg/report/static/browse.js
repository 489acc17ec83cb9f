// The list of images: what is shown, in which order, and the address that says so.
"use strict";

const form = element("filters");
const FIELDS = [...form.elements].map((field) => field.name).filter(Boolean);
const DEFAULTS = { sort: REPORT.truth ? "miou" : "differing", of: "0" };
const EMPTY = { search: "", truth: "", guess: "", fold: "", scene: "", from: "", to: "", ...DEFAULTS };
let shown = [];
let hash = null;

const viewer = new Viewer((by) => step(by), () => writeAddress());

function step(by) {
  const place = shown.indexOf(viewer.row);
  const next = shown[place + by];
  if (next) {
    viewer.open(next);
    writeAddress();
  }
}

function pairPixels(row, of, truth, guess) {
  let pixels = 0;
  for (const [from, to, count] of row.scores[of].pairs) {
    const wanted = (truth === "" || from === Number(truth)) && (guess === "" || to === Number(guess));
    if (wanted) pixels += count;
  }
  return pixels;
}

const settings = () => ({ ...EMPTY, ...Object.fromEntries(new FormData(form)) });

function select(chosen) {
  const of = Number(chosen.of);
  const text = chosen.search.trim().toLowerCase();
  const pairs = chosen.truth !== "" || chosen.guess !== "";
  const low = chosen.from === "" ? -1 : Number(chosen.from);
  const high = chosen.to === "" ? 2 : Number(chosen.to);
  return REPORT.images.filter((row) => {
    const scores = row.scores[of];
    // Without a score an image lies within no limits.
    const miou = scores.miou ?? (low < 0 && high > 1 ? 0 : NaN);
    return (
      (!text || row.id.toLowerCase().includes(text) || row.scene.toLowerCase().includes(text)) &&
      (chosen.fold === "" || scores.fold === Number(chosen.fold)) &&
      (chosen.scene === "" || `=${row.scene}` === chosen.scene) &&
      miou >= low && miou <= high &&
      (!pairs || pairPixels(row, of, chosen.truth, chosen.guess) > 0)
    );
  });
}

const gain = (row) => (row.scores[1].miou ?? 0) - (row.scores[0].miou ?? 0);

function order(rows, chosen) {
  const of = Number(chosen.of);
  const keys = {
    miou: (row) => row.scores[of].miou ?? 2,
    accuracy: (row) => row.scores[of].accuracy ?? 2,
    sure: (row) => -row.scores[of].sure,
    doubt: (row) => row.scores[of].sure,
    unsure: (row) => -row.scores[of].unsure,
    pair: (row) => -pairPixels(row, of, chosen.truth, chosen.guess),
    differing: (row) => -row.differing,
    gain: (row) => -gain(row),
    loss: (row) => gain(row),
    id: () => 0,
  };
  const key = keys[chosen.sort];
  const names = new Intl.Collator("en", { numeric: true });
  return rows
    .map((row) => [key(row), row])
    .sort((one, other) => one[0] - other[0] || names.compare(one[1].id, other[1].id))
    .map(([, row]) => row);
}

function caption(row, chosen) {
  const of = Number(chosen.of);
  const scores = row.scores[of];
  const parts = [REPORT.truth ? `mIoU ${score(scores.miou)}` : `${percent(scores.sure)} sure`];
  if (chosen.sort === "accuracy") parts[0] = `accuracy ${score(scores.accuracy)}`;
  if (chosen.sort === "unsure") parts.push(`${percent(scores.unsure)} unsure`);
  if (chosen.sort === "sure") parts.push(`${percent(scores.sure)} surely wrong`);
  if (chosen.sort === "differing") parts.push(`${percent(row.differing)} differ`);
  if (chosen.sort === "gain" || chosen.sort === "loss") parts.push(`difference ${gain(row).toFixed(3)}`);
  if (chosen.truth !== "" || chosen.guess !== "") {
    const total = scores.pairs.reduce((sum, one) => sum + one[2], 0) || 1;
    parts.push(percent(pairPixels(row, of, chosen.truth, chosen.guess) / total));
  }
  return parts.join(" · ");
}

function card(row, chosen) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const image = document.createElement("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.width = REPORT.thumb[0];
  image.height = REPORT.thumb[1];
  image.src = `thumbs/${encodeURIComponent(row.file)}.webp`;
  const title = document.createElement("b");
  title.textContent = row.id;
  const text = document.createElement("span");
  text.textContent = caption(row, chosen);
  button.append(image, title, text);
  button.addEventListener("click", () => {
    viewer.open(row);
    writeAddress();
  });
  item.append(button);
  return item;
}

function update() {
  const chosen = settings();
  viewer.of = Number(chosen.of);
  shown = order(select(chosen), chosen);
  fill(element("cards"), shown.map((row) => card(row, chosen)));
  element("count").textContent = `${shown.length} of ${REPORT.images.length} images`;
}

// The address holds all that is chosen, so that a view can be sent to somebody.
function writeAddress() {
  const facts = new URLSearchParams();
  for (const [name, value] of Object.entries(settings())) {
    if (value !== EMPTY[name]) facts.set(name, value);
  }
  if (viewer.row) {
    facts.set("id", viewer.row.id);
    facts.set("layer", viewer.layer + 1);
    facts.set("opacity", viewer.opacity);
  }
  hash = `#${facts}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

function readAddress() {
  if (location.hash === hash) return;
  const facts = new URLSearchParams(location.hash.slice(1));
  for (const name of FIELDS) {
    const field = form.elements[name];
    field.value = facts.get(name) ?? EMPTY[name];
    if (field.selectedIndex === -1) field.value = EMPTY[name]; // Not one of its choices.
  }
  if (!facts.has("sort") && facts.has("guess")) form.elements.sort.value = "pair";
  const layer = Number(facts.get("layer"));
  if (layer >= 1 && layer <= LAYERS.length) viewer.layer = layer - 1;
  const opacity = facts.get("opacity");
  if (opacity !== null && Number(opacity) >= 0 && Number(opacity) <= 100) viewer.opacity = Number(opacity);
  update();
  const row = REPORT.images.find((one) => one.id === facts.get("id"));
  if (row) viewer.open(row);
  else if (viewer.dialog.open) viewer.dialog.close();
  writeAddress();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  update();
  writeAddress();
});
form.addEventListener("reset", () => {
  setTimeout(() => {
    update();
    writeAddress();
  });
});
addEventListener("hashchange", readAddress);

document.addEventListener("keydown", (event) => {
  if (viewer.dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.matches("input, select")) {
    form.elements.search.focus();
    event.preventDefault();
    return;
  }
  const buttons = [...document.querySelectorAll("#cards button")];
  const place = buttons.indexOf(document.activeElement);
  const columns = Math.max(1, buttons.filter((one) => one.offsetTop === buttons[0].offsetTop).length);
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (!(event.key in moves) || event.target.matches("input, select")) return;
  const next = place < 0 ? buttons[0] : buttons[place + moves[event.key]];
  if (next) {
    next.focus();
    event.preventDefault();
  }
});

readAddress();
