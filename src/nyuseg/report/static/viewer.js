// One image at full size: layers, opacity, the pixel under the pointer.
"use strict";

const element = (id) => document.getElementById(id);

class Viewer {
  // step: what to do to show another image; changed: what to do after a setting changed.
  constructor(step, changed) {
    this.dialog = element("viewer");
    this.layer = 3;
    this.opacity = 65;
    this.of = 0;
    this.row = null;
    this.frame = null;
    this.pixel = null;
    this.changed = changed;
    element("previous").addEventListener("click", () => step(-1));
    element("next").addEventListener("click", () => step(1));
    element("close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => { this.row = null; changed(); });
    this.dialog.addEventListener("keydown", (event) => this.key(event, step));
    LAYERS.forEach((layer, index) => element("layers").append(this.layerButton(layer, index)));
    element("opacity").addEventListener("input", (event) => {
      this.opacity = Number(event.target.value);
      this.showSettings();
      changed();
    });
    element("stage").addEventListener("pointermove", (event) => this.point(event));
    element("stage").addEventListener("pointerdown", (event) => this.point(event));
  }

  layerButton(layer, index) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.layer = index;
    button.textContent = `${index + 1} ${layer.name}`;
    button.addEventListener("click", () => this.setLayer(index));
    return button;
  }

  setLayer(index) {
    if (this.frame && !LAYERS[index].needs(this.frame)) return;
    this.layer = index;
    this.show();
    this.changed();
  }

  key(event, step) {
    if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move && event.shiftKey && this.frame) {
      const [height, width] = this.frame.size;
      const [y, x] = this.pixel || [Math.floor(height / 2), Math.floor(width / 2)];
      this.setPixel(
        Math.min(Math.max(y + 8 * move[0], 0), height - 1),
        Math.min(Math.max(x + 8 * move[1], 0), width - 1),
      );
    } else if (move) {
      step(move[0] + move[1]);
    } else if (/^[1-6]$/.test(event.key)) {
      this.setLayer(Number(event.key) - 1);
    } else {
      return;
    }
    event.preventDefault();
  }

  point(event) {
    if (!this.frame) return;
    const box = element("stage").getBoundingClientRect();
    const [height, width] = this.frame.size;
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    if (y >= 0 && y < height && x >= 0 && x < width) this.setPixel(y, x);
  }

  setPixel(y, x) {
    this.pixel = [y, x];
    this.showPixel();
  }

  async open(row) {
    const again = this.row === row;
    this.row = row;
    if (!this.dialog.open) this.dialog.showModal();
    if (!again) {
      this.frame = null;
      const picture = element("picture");
      picture.src = `frames/${encodeURIComponent(row.file)}.webp`;
      element("stage").setAttribute("aria-label", `image ${row.id}`);
      element("overlay").width = 0; // Not the last image's over this one.
    }
    this.showFacts();
    try {
      const frame = await loadFrame(row.file);
      if (this.row !== row) return; // Another one was opened meanwhile.
      this.frame = frame;
      this.show();
    } catch (error) {
      if (this.row !== row) return;
      fill(element("readout"), [pair("error", error.message)]);
    }
  }

  show() {
    this.showSettings();
    if (!this.frame) return;
    const layer = LAYERS[this.layer].needs(this.frame) ? this.layer : 3;
    paint(element("overlay"), this.frame, layer, this.of);
    const [height, width] = this.frame.size;
    element("stage").style.setProperty("--ratio", width / height);
    for (const button of element("layers").children) {
      button.disabled = !LAYERS[button.dataset.layer].needs(this.frame);
    }
    this.showPixel();
  }

  showSettings() {
    element("opacity").value = this.opacity;
    element("overlay").style.opacity = this.opacity / 100;
    for (const button of element("layers").children) {
      const chosen = Number(button.dataset.layer) === this.layer;
      button.setAttribute("aria-pressed", chosen);
    }
  }

  showPixel() {
    const cross = element("cross");
    cross.hidden = !this.pixel || !this.frame;
    if (cross.hidden) {
      fill(element("readout"), [pair("pixel", "point at one")]);
      return;
    }
    const [height, width] = this.frame.size;
    const y = Math.min(this.pixel[0], height - 1), x = Math.min(this.pixel[1], width - 1);
    cross.style.left = `${((x + 0.5) / width) * 100}%`;
    cross.style.top = `${((y + 0.5) / height) * 100}%`;
    fill(element("readout"), tell(this.frame, this.of, y, x).map(([what, text]) => pair(what, text)));
  }

  showFacts() {
    const scores = this.row.scores[this.of];
    element("viewer-title").textContent = REPORT.truth
      ? `${this.row.id} · ${this.row.scene} · fold ${scores.fold} · mIoU ${score(scores.miou)}`
      : `${this.row.id} · ${percent(scores.sure)} sure · folds differ at ${percent(this.row.differing)}`;
    const total = scores.pairs.reduce((sum, one) => sum + one[2], 0) || 1;
    const wrong = REPORT.truth ? scores.pairs.filter(([truth, guess]) => truth !== guess) : [];
    wrong.sort((one, other) => other[2] - one[2]);
    fill(element("errors"), wrong.slice(0, 5).map(([truth, guess, pixels]) => {
      const link = document.createElement("a");
      link.href = `#truth=${truth}&guess=${guess}&of=${this.of}`;
      const [from, to] = [REPORT.classes[truth], REPORT.classes[guess]];
      link.textContent = `${from} taken for ${to}: ${percent(pixels / total)}`;
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
    const shares = REPORT.classes.map((_, k) => [
      scores.pairs.reduce((sum, one) => sum + (one[0] === k ? one[2] : 0), 0) / total,
      scores.pairs.reduce((sum, one) => sum + (one[1] === k ? one[2] : 0), 0) / total,
    ]);
    fill(element("legend"), REPORT.classes.flatMap((name, k) => {
      const [truth, guess] = shares[k];
      if (!truth && !guess) return [];
      const item = document.createElement("li");
      const swatch = document.createElement("i");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${REPORT.palette[k].join(",")})`;
      const told = REPORT.truth ? `${percent(truth)} true, ` : "";
      const text = `${name}: ${told}${percent(guess)} predicted`;
      item.append(swatch, text);
      return [item];
    }));
  }
}

function fill(parent, children) {
  parent.replaceChildren(...children);
}

function pair(what, text) {
  const holder = document.createElement("div");
  const term = document.createElement("dt"), value = document.createElement("dd");
  term.textContent = what;
  value.textContent = text;
  holder.append(term, value);
  return holder;
}

const score = (value) => (value === null || value === undefined ? "-" : value.toFixed(3));
const percent = (part) => `${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`;
